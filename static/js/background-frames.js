// Reads frames of a video while the tab is hidden, when browsers call nobody for a new frame.
// A camera is read from its track where the browser can do so. Otherwise a worker, whose timers browsers do not slow
// down, asks for the current frame of the video element; browsers may stop to decode a file then.

const TICK_MS = 50;

export class BackgroundFrames {
  /**
   * @param {HTMLVideoElement} video
   * @param {(frame: HTMLVideoElement | VideoFrame) => Promise<void>} onFrame a `VideoFrame` is closed afterwards
   */
  constructor(video, onFrame) {
    this._video = video;
    this._onFrame = onFrame;
    /** Ends the reading that is in progress; null: there is none. */
    this._cancel = null;
  }

  start() {
    if (this._cancel) return;
    const [track] = this._video.srcObject?.getVideoTracks?.() ?? [];
    this._cancel = track && window.MediaStreamTrackProcessor ? this._readTrack(track) : this._tick();
  }

  stop() {
    this._cancel?.();
    this._cancel = null;
  }

  _readTrack(track) {
    const copy = track.clone();
    const reader = new window.MediaStreamTrackProcessor({ track: copy }).readable.getReader();
    const read = async () => {
      for (;;) {
        const { done, value: frame } = await reader.read();
        if (done) return;
        try {
          await this._onFrame(frame);
        } finally {
          frame.close();
        }
      }
    };
    read().catch(() => {}); // The track has ended, or `cancel` was called.
    return () => {
      reader.cancel().catch(() => {});
      copy.stop();
    };
  }

  _tick() {
    let isBusy = false;
    const handle = async () => {
      if (isBusy) return;
      isBusy = true;
      try {
        await this._onFrame(this._video);
      } finally {
        isBusy = false;
      }
    };
    const worker = new Worker(new URL('timer-worker.js', import.meta.url), { type: 'module' });
    worker.onmessage = handle;
    worker.postMessage(TICK_MS);
    return () => worker.terminate();
  }
}
