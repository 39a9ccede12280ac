// Turns the video's present picture into a JPEG: in a worker where the browser can, else on a canvas here.

/**
 * @typedef {object} Encoded
 * @property {ArrayBuffer} bytes the JPEG
 * @property {ImageBitmap | HTMLCanvasElement | null} image the same picture in full size, when asked for
 */

export class Encoder {
  constructor() {
    this._worker = null;
    this._waiting = null;
    this._canvas = null;
    this._startWorker();
  }

  /** `worker` or `canvas`: which way is in use. */
  get way() {
    return this._worker ? 'worker' : 'canvas';
  }

  /**
   * One call at a time.
   * @param {HTMLVideoElement} video
   * @param {{width: number, height: number, quality: number, keep: boolean}} wanted JPEG size in pixels;
   *   `keep`: return the picture too
   * @returns {Promise<Encoded>}
   */
  async encode(video, wanted) {
    if (!this._worker) return this._encodeHere(video, wanted);
    const image = await createImageBitmap(video);
    if (!this._worker) {
      image.close();
      return this._encodeHere(video, wanted);
    }
    return new Promise((resolve, reject) => {
      this._waiting = { resolve, reject };
      this._worker.postMessage({ image, ...wanted }, [image]);
    });
  }

  _startWorker() {
    if (typeof OffscreenCanvas === 'undefined' || typeof createImageBitmap === 'undefined') return;
    if (!OffscreenCanvas.prototype.convertToBlob) return;
    try {
      this._worker = new Worker(new URL('encoder-worker.js', import.meta.url), { type: 'module' });
    } catch {
      return;
    }
    this._worker.onmessage = ({ data }) => {
      if (data.error) this._fallBack(data.error);
      else this._settle('resolve', data);
    };
    // An older browser that knows workers but not module workers says so here.
    this._worker.onerror = (event) => {
      event.preventDefault();
      this._fallBack('the worker did not start');
    };
  }

  _fallBack(reason) {
    this._worker?.terminate();
    this._worker = null;
    this._settle('reject', new Error(reason));
  }

  _settle(how, value) {
    const waiting = this._waiting;
    this._waiting = null;
    waiting?.[how](value);
  }

  async _encodeHere(video, { width, height, quality, keep }) {
    this._canvas ??= document.createElement('canvas');
    draw(this._canvas, video, width, height);
    // Before anything is awaited: the video goes on.
    const image = keep ? draw(document.createElement('canvas'), video, video.videoWidth, video.videoHeight) : null;
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
