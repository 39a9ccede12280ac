// Calls back once per new picture of a video; requestVideoFrameCallback where there is one, else per screen frame.

export class FrameClock {
  /**
   * @param {HTMLVideoElement} video
   * @param {(nowMs: number, capturedMs: number) => void} onFrame `capturedMs`: by the camera, where it says so
   */
  constructor(video, onFrame) {
    this._video = video;
    this._onFrame = onFrame;
    this._running = false;
    this._lastTime = -1;
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
      if (this._isNew()) this._onFrame(nowMs, metadata?.captureTime ?? metadata?.presentationTime ?? nowMs);
    };
    if (this._video.requestVideoFrameCallback) this._video.requestVideoFrameCallback(step);
    else requestAnimationFrame(step);
  }

  _isNew() {
    if (this._video.requestVideoFrameCallback) return true;
    // Without the callback, the play position is all that tells one picture from the next.
    if (this._video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) return false;
    if (this._video.currentTime === this._lastTime) return false;
    this._lastTime = this._video.currentTime;
    return true;
  }
}
