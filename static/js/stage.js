// The picture and its boxes: live boxes over the running video, or each frame drawn with its own boxes.

import { place } from './geometry.js';
import { drawBoxes } from './overlay.js';

/** Boxes over live video older than this say nothing about what is seen now. */
const STALE_MS = 1500;

export class Stage {
  /**
   * @param {{root: HTMLElement, video: HTMLVideoElement, canvas: HTMLCanvasElement}} parts
   * @param {(row: number[]) => boolean} wanted whether a box is to be drawn, by threshold and class
   */
  constructor({ root, video, canvas }, wanted) {
    this._root = root;
    this._video = video;
    this._canvas = canvas;
    this._context = canvas.getContext('2d');
    this._wanted = wanted;
    this._result = null;
    this._image = null;
    this._shownMs = 0;
    this._dirty = false;
    this._request = 0;
    this.labels = [];
    this.view = 'live';
    this.fit = 'contain';
    this.mirror = false;
    /** What the canvas shows now; for tests and the curious. */
    this.drawn = null;
    new ResizeObserver(() => this._resize()).observe(root);
    video.addEventListener('resize', () => this._shape());
  }

  /** Change how the picture is shown: any of view, fit, mirror. */
  set(options) {
    Object.assign(this, options);
    this._root.dataset.view = this.view;
    this._root.dataset.fit = this.fit;
    this._root.classList.toggle('mirrored', this.mirror);
    if (this.view === 'live') this._keepImage(null);
    this.redraw();
  }

  /**
   * Show a result.
   * @param {object} result message of the server
   * @param {ImageBitmap | HTMLCanvasElement | null} image the frame itself; kept and closed here
   */
  show(result, image) {
    this._result = result;
    this._shownMs = performance.now();
    if (this.view === 'synced') {
      if (!image) return;
      this._keepImage(image);
      this.redraw();
      return;
    }
    image?.close?.();
    this._dirty = true;
    if (this._video.paused) this.redraw();
  }

  /** A new picture is on the video element: draw the newest boxes over it, once. */
  videoFrame(nowMs) {
    if (this.view !== 'live') return;
    if (this._result && nowMs - this._shownMs > STALE_MS && !this._video.paused) {
      this._result = null;
      this._dirty = true;
    }
    if (this._dirty) this._draw();
  }

  /** Nothing that was shown is true any more: another source or model. */
  clear() {
    this._result = null;
    this._keepImage(null);
    this.redraw();
  }

  /** Draw at the next screen refresh. */
  redraw() {
    this._request ||= requestAnimationFrame(() => this._draw());
  }

  /**
   * Return the picture as shown, with its boxes, in the source's own size.
   * @returns {Promise<Blob | null>} PNG; null when nothing is shown
   */
  async snapshot() {
    const picture = this._picture();
    if (!picture) return null;
    const canvas = document.createElement('canvas');
    canvas.width = picture.width;
    canvas.height = picture.height;
    const placement = place(picture, canvas, 'contain', this.mirror);
    const context = canvas.getContext('2d');
    drawPicture(context, picture.image, placement);
    if (this._result) {
      const pixelRatio = Math.max(1, picture.width / 960);
      drawBoxes(context, this._scene(placement, pixelRatio));
    }
    return new Promise((resolve) => canvas.toBlob(resolve, 'image/png'));
  }

  _picture() {
    if (this._image) return { image: this._image, width: this._image.width, height: this._image.height };
    const { videoWidth: width, videoHeight: height } = this._video;
    return width ? { image: this._video, width, height } : null;
  }

  _scene(placement, pixelRatio) {
    const { boxes, width, height } = this._result;
    return {
      boxes: boxes.filter(this._wanted),
      frame: { width, height },
      placement,
      labels: this.labels,
      pixelRatio,
    };
  }

  _draw() {
    cancelAnimationFrame(this._request);
    this._request = 0;
    this._dirty = false;
    const { width, height } = this._canvas;
    this._context.clearRect(0, 0, width, height);
    this.drawn = null;
    const picture = this._picture();
    if (!picture || !width) return;
    const placement = place(picture, this._canvas, this.fit, this.mirror);
    if (this._image) drawPicture(this._context, this._image, placement);
    if (!this._result) return;
    const scene = this._scene(placement, window.devicePixelRatio || 1);
    drawBoxes(this._context, scene);
    this.drawn = { seq: this._result.seq, ts: this._result.ts, view: this.view, ...scene };
  }

  _keepImage(image) {
    if (this._image !== image) this._image?.close?.();
    this._image = image;
  }

  _resize() {
    const ratio = window.devicePixelRatio || 1;
    this._canvas.width = Math.round(this._root.clientWidth * ratio);
    this._canvas.height = Math.round(this._root.clientHeight * ratio);
    this._draw();
  }

  /** The stage takes the picture's shape, within the room that the layout leaves. */
  _shape() {
    const { videoWidth, videoHeight } = this._video;
    if (videoWidth) this._root.style.setProperty('--shape', String(videoWidth / videoHeight));
    this.redraw();
  }
}

function drawPicture(context, image, { left, top, width, height, mirror }) {
  context.save();
  if (mirror) {
    context.translate(2 * left + width, 0);
    context.scale(-1, 1);
  }
  context.drawImage(image, left, top, width, height);
  context.restore();
}
