// Encodes the current frame of a video as JPEG: in a worker if the browser supports it, else on the main thread.

/**
 * @typedef {object} EncodedFrame
 * @property {ArrayBuffer} bytes the JPEG
 * @property {ImageBitmap | HTMLCanvasElement | null} image the same frame in full size, if `keepImage` was set
 */

export class JpegEncoder {
  constructor() {
    this._worker = null;
    /** `resolve` and `reject` of the request that the worker is processing. */
    this._request = null;
    this._canvas = null;
    this._startWorker();
  }

  /** Where frames are encoded: `worker`, or `canvas` for the main thread. */
  get backend() {
    return this._worker ? 'worker' : 'canvas';
  }

  /**
   * Encode the current frame. Only one call may be in progress at a time.
   * @param {HTMLVideoElement | VideoFrame} video
   * @param {{width: number, height: number, quality: number, keepImage: boolean}} options size of the JPEG in pixels;
   *   `quality`: 0 to 1; `keepImage`: also return the frame in full size
   * @returns {Promise<EncodedFrame>}
   * @throws {Error} if the browser cannot encode JPEG, or the worker fails
   */
  async encode(video, options) {
    if (!this._worker) return this._encodeOnMainThread(video, options);
    const image = await createImageBitmap(video);
    if (!this._worker) {
      image.close();
      return this._encodeOnMainThread(video, options);
    }
    return new Promise((resolve, reject) => {
      this._request = { resolve, reject };
      this._worker.postMessage({ image, ...options }, [image]);
    });
  }

  _startWorker() {
    if (typeof OffscreenCanvas === 'undefined' || typeof createImageBitmap === 'undefined') return;
    if (!OffscreenCanvas.prototype.convertToBlob) return;
    try {
      this._worker = new Worker(new URL('jpeg-encoder-worker.js', import.meta.url), { type: 'module' });
    } catch {
      return;
    }
    this._worker.onmessage = ({ data }) => {
      if (data.error) this._stopWorker(data.error);
      else this._takeRequest()?.resolve(data);
    };
    // Browsers that support workers but not module workers report it here.
    this._worker.onerror = (event) => {
      event.preventDefault();
      this._stopWorker('the worker did not start');
    };
  }

  /** Encode on the main thread from now on. */
  _stopWorker(reason) {
    this._worker?.terminate();
    this._worker = null;
    this._takeRequest()?.reject(new Error(reason));
  }

  _takeRequest() {
    const request = this._request;
    this._request = null;
    return request;
  }

  async _encodeOnMainThread(video, { width, height, quality, keepImage }) {
    this._canvas ??= document.createElement('canvas');
    draw(this._canvas, video, width, height);
    // Copy the image before the first await: the video continues to play and would show another frame afterwards.
    const [fullWidth, fullHeight] = [video.videoWidth ?? video.displayWidth, video.videoHeight ?? video.displayHeight];
    const image = keepImage ? draw(document.createElement('canvas'), video, fullWidth, fullHeight) : null;
    const blob = await new Promise((resolve) => this._canvas.toBlob(resolve, 'image/jpeg', quality));
    if (blob?.type !== 'image/jpeg') throw new Error('this browser cannot encode JPEG');
    return { bytes: await blob.arrayBuffer(), image };
  }
}

function draw(canvas, video, width, height) {
  canvas.width = width;
  canvas.height = height;
  canvas.getContext('2d', { alpha: false }).drawImage(video, 0, 0, width, height);
  return canvas;
}
