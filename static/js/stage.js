// Shows the video and its boxes: the newest boxes over the running video, or each frame with its own boxes.

import { textsOf } from './code-text.js';
import { paintTime } from './delay.js';
import { saveFile, timestamp } from './download.js';
import { place } from './geometry.js';
import { drawBoxes } from './overlay.js';

/** In the live view, boxes older than this are removed: the objects have moved since. */
const MAX_BOX_AGE_MS = 1500;
/** Boxes in a saved image are drawn in proportion to this width, so that lines stay visible in large images. */
const SNAPSHOT_BASE_WIDTH_PX = 960;

export class Stage {
  /**
   * @param {{root: HTMLElement, video: HTMLVideoElement, canvas: HTMLCanvasElement}} elements
   * @param {(box: number[]) => boolean} isVisible whether to draw a box
   * @param {(time: {capturedMs: number, origin: 'camera' | 'page'}, paintedMs: number) => void} onPainted the boxes of
   *   a frame have appeared on the screen
   */
  constructor({ root, video, canvas }, isVisible, onPainted) {
    this._root = root;
    this._video = video;
    this._canvas = canvas;
    this._context = canvas.getContext('2d');
    this._isVisible = isVisible;
    this._onPainted = onPainted;
    /** Capture time of the result's frame until the result is drawn for the first time; null afterwards. */
    this._unpaintedTime = null;
    /** Result whose boxes are shown; null: none. */
    this._result = null;
    /** In the synced view, the frame that the result belongs to. The stage closes it. */
    this._image = null;
    this._resultShownMs = 0;
    this._needsDraw = false;
    this._animationRequest = 0;
    this.labels = [];
    this.view = 'live';
    this.fit = 'contain';
    this.mirror = false;
    /** The scene that the canvas shows now; null: none. Tests and the console read it. */
    this.drawn = null;
    new ResizeObserver(() => this._resizeCanvas()).observe(root);
    video.addEventListener('resize', () => this._updateAspectRatio());
  }

  /** @param {{view?: 'live' | 'synced', fit?: 'contain' | 'cover', mirror?: boolean}} options */
  setOptions(options) {
    Object.assign(this, options);
    this._showView();
    this._root.dataset.fit = this.fit;
    this._root.classList.toggle('mirrored', this.mirror);
    if (this.view === 'live') this._setImage(null);
    this.requestDraw();
  }

  /** In the synced view, the canvas shows the frame and hides the video: but only once there is a frame. */
  _showView() {
    this._root.dataset.view = this.view === 'synced' && this._image ? 'synced' : 'live';
  }

  /**
   * Show a result.
   * @param {object} result `result` message of the server
   * @param {ImageBitmap | HTMLCanvasElement | null} image the frame that the result belongs to; the stage closes it
   * @param {{capturedMs: number, origin: 'camera' | 'page'} | null} time when the frame was captured; null: not known
   */
  showResult(result, image, time) {
    // Without its frame, a result cannot be shown in the synced view: the canvas shows another frame.
    if (this.view === 'synced' && !image) return;
    this._result = result;
    // In a hidden tab nothing is painted.
    this._unpaintedTime = document.hidden ? null : time;
    this._resultShownMs = performance.now();
    if (this.view === 'synced') {
      this._setImage(image);
      this.requestDraw();
      return;
    }
    image?.close?.();
    this._needsDraw = true;
    if (this._video.paused) this.requestDraw();
  }

  /**
   * In the live view, draw a new result together with the new frame of the video element.
   * @param {number} nowMs
   * @param {import('./delay.js').FrameTime} time of the new frame
   */
  handleVideoFrame(nowMs, { displayMs }) {
    if (this.view !== 'live') return;
    if (this._result && nowMs - this._resultShownMs > MAX_BOX_AGE_MS && !this._video.paused) {
      this._result = null;
      this._needsDraw = true;
    }
    if (this._needsDraw) this._draw(displayMs);
  }

  /** Remove boxes and frame, because the source or the model has changed. */
  clear() {
    this._result = this._unpaintedTime = null;
    this._setImage(null);
    this.requestDraw();
  }

  /** Draw at the next screen refresh. */
  requestDraw() {
    this._animationRequest ||= requestAnimationFrame(() => this._draw());
  }

  /** Save the frame with its boxes as a PNG file, in the size of the source. Does nothing if no frame is shown. */
  async saveSnapshot() {
    const frame = this._currentFrame();
    if (!frame) return;
    const canvas = document.createElement('canvas');
    canvas.width = frame.width;
    canvas.height = frame.height;
    // Never mirrored: text in a saved image has to be readable, and other programs have to find the same boxes.
    const placement = place(frame, canvas, 'contain', false);
    const context = canvas.getContext('2d');
    drawImage(context, frame.image, placement);
    if (this._result) {
      const pixelRatio = Math.max(1, frame.width / SNAPSHOT_BASE_WIDTH_PX);
      drawBoxes(context, this._scene(placement, pixelRatio));
    }
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, 'image/png'));
    if (blob) saveFile(blob, `detections-${timestamp()}.png`);
  }

  _currentFrame() {
    if (this._image) return { image: this._image, width: this._image.width, height: this._image.height };
    const { videoWidth: width, videoHeight: height } = this._video;
    return width ? { image: this._video, width, height } : null;
  }

  _scene(placement, pixelRatio) {
    const { boxes, width, height } = this._result;
    return {
      boxes: boxes.filter(this._isVisible),
      frame: { width, height },
      placement,
      labels: this.labels,
      texts: textsOf(this._result),
      pixelRatio,
    };
  }

  /** @param {number | null} displayMs when the present frame of the video is expected on the screen; null: not known */
  _draw(displayMs = null) {
    cancelAnimationFrame(this._animationRequest);
    this._animationRequest = 0;
    this._needsDraw = false;
    const { width, height } = this._canvas;
    this._context.clearRect(0, 0, width, height);
    this.drawn = null;
    const frame = this._currentFrame();
    if (!frame || !width) return;
    const placement = place(frame, this._canvas, this.fit, this.mirror);
    if (this._image) drawImage(this._context, this._image, placement);
    if (!this._result) return;
    const scene = this._scene(placement, window.devicePixelRatio || 1);
    drawBoxes(this._context, scene);
    this._reportPaint(displayMs);
    this.drawn = { seq: this._result.seq, ts: this._result.ts, view: this.view, ...scene };
  }

  _reportPaint(displayMs) {
    const time = this._unpaintedTime;
    if (!time) return;
    this._unpaintedTime = null;
    // Drawing happens just before the browser paints; the message arrives after that.
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      this._onPainted(time, paintTime(performance.now(), displayMs));
    };
    port2.postMessage(null);
  }

  _setImage(image) {
    if (this._image !== image) this._image?.close?.();
    this._image = image;
    this._showView();
  }

  _resizeCanvas() {
    const ratio = window.devicePixelRatio || 1;
    this._canvas.width = Math.round(this._root.clientWidth * ratio);
    this._canvas.height = Math.round(this._root.clientHeight * ratio);
    this._draw();
  }

  /** Give the stage the aspect ratio of the video, within the limits of the layout. */
  _updateAspectRatio() {
    const { videoWidth, videoHeight } = this._video;
    if (videoWidth) this._root.style.setProperty('--aspect-ratio', String(videoWidth / videoHeight));
    this.requestDraw();
  }
}

function drawImage(context, image, { left, top, width, height, mirror }) {
  context.save();
  if (mirror) {
    context.translate(2 * left + width, 0);
    context.scale(-1, 1);
  }
  context.drawImage(image, left, top, width, height);
  context.restore();
}
