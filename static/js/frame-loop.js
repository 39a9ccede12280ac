// Calls a function for each new frame of a video: with requestVideoFrameCallback, or by polling at each screen refresh.

export class FrameLoop {
  /**
   * @param {HTMLVideoElement} video
   * @param {(nowMs: number, capturedMs: number) => void} onFrame `capturedMs`: capture time if the browser knows it,
   *   else the time of presentation
   */
  constructor(video, onFrame) {
    this._video = video;
    this._onFrame = onFrame;
    this._running = false;
    this._lastPosition = -1;
  }

  start() {
    if (this._running) return;
    this._running = true;
    this._request();
  }

  stop() {
    this._running = false;
  }

  _request() {
    const step = (_, metadata) => {
      if (!this._running) return;
      this._request();
      const nowMs = performance.now();
      if (this._isNewFrame()) this._onFrame(nowMs, metadata?.captureTime ?? metadata?.presentationTime ?? nowMs);
    };
    if (this._video.requestVideoFrameCallback) this._video.requestVideoFrameCallback(step);
    else requestAnimationFrame(step);
  }

  _isNewFrame() {
    if (this._video.requestVideoFrameCallback) return true;
    // Without requestVideoFrameCallback, only the playback position distinguishes one frame from the next.
    if (this._video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) return false;
    if (this._video.currentTime === this._lastPosition) return false;
    this._lastPosition = this._video.currentTime;
    return true;
  }
}
