// Calls a function for each new frame of a video, also while the tab is hidden.

import { BackgroundFrames } from './background-frames.js';
import { frameTime } from './delay.js';

/**
 * Receives a frame. In a hidden tab, `frame` is closed when the returned promise settles.
 * @callback FrameHandler
 * @param {HTMLVideoElement | VideoFrame} frame
 * @param {number} nowMs
 * @param {import('./delay.js').FrameTime} time
 * @returns {Promise<void> | void}
 */

export class FrameLoop {
  /**
   * @param {HTMLVideoElement} video
   * @param {FrameHandler} onFrame
   */
  constructor(video, onFrame) {
    this._video = video;
    this._onFrame = onFrame;
    this._running = false;
    this._lastPosition = -1;
    this._background = new BackgroundFrames(video, (frame) => this._handleBackgroundFrame(frame));
    document.addEventListener('visibilitychange', () => this._updateBackground());
  }

  start() {
    if (!this._running) {
      this._running = true;
      this._request();
    }
    // Also if it runs: the source may be another one.
    this._background.stop();
    this._updateBackground();
  }

  stop() {
    this._running = false;
    this._background.stop();
  }

  _request() {
    // `metadata` exists only with requestVideoFrameCallback.
    const step = (_, metadata) => {
      if (!this._running) return;
      this._request();
      if (document.hidden) return;
      const nowMs = performance.now();
      if (this._isNewFrame()) this._onFrame(this._video, nowMs, frameTime(metadata, nowMs));
    };
    if (this._video.requestVideoFrameCallback) this._video.requestVideoFrameCallback(step);
    else requestAnimationFrame(step);
  }

  _updateBackground() {
    if (this._running && document.hidden) this._background.start();
    else this._background.stop();
  }

  async _handleBackgroundFrame(frame) {
    if (frame === this._video && !this._hasMoved()) return;
    const nowMs = performance.now();
    await this._onFrame(frame, nowMs, frameTime(undefined, nowMs));
  }

  _isNewFrame() {
    // Without requestVideoFrameCallback, only the playback position distinguishes one frame from the next.
    return Boolean(this._video.requestVideoFrameCallback) || this._hasMoved();
  }

  _hasMoved() {
    if (this._video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) return false;
    if (this._video.currentTime === this._lastPosition) return false;
    this._lastPosition = this._video.currentTime;
    return true;
  }
}
