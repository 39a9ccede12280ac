// Shows photos in place of the video: one with its boxes, a strip to choose from, the answer and the commands.

import { saveFile } from './download.js';
import { place } from './geometry.js';
import { drawBoxes } from './overlay.js';
import { describeAnswer, sceneOf } from './photo-analysis.js';
import { MAX_PHOTOS, PhotoCollection } from './photo-collection.js';
import { PhotoText } from './photo-text.js';

/** Boxes in a saved image are drawn in proportion to this width, so that lines stay visible in large images. */
const SAVED_BASE_WIDTH_PX = 960;
const THUMBNAIL_PX = 144;
/** Delay of another analysis, so that a moving slider does not cause one at each step. */
const REPEAT_DELAY_MS = 350;

const STATE_TEXTS = { waiting: 'Waiting …', running: 'Analysing …' };

export class PhotosView {
  /**
   * @param {object} owner
   * @param {() => string} owner.url address that analyses an image with the present settings
   * @param {() => string} owner.key API key; empty: none
   * @param {() => void} owner.onOpen the photos replace the video
   * @param {() => void} owner.onClose the video replaces the photos
   * @param {() => void} owner.onKeyRequired
   */
  constructor(owner) {
    this._owner = owner;
    this._root = document.getElementById('photos');
    this._canvas = document.getElementById('photo-canvas');
    this._status = document.getElementById('photo-status');
    this._strip = document.getElementById('photo-strip');
    this._collection = new PhotoCollection({ ...owner, onChange: (photo) => this._update(photo) });
    this._text = new PhotoText(() => owner.key() !== '');
    /** Button in the strip by photo. */
    this._buttons = new Map();
    /** @type {import('./photo-collection.js').Photo | null} */
    this._selected = null;
    /** Pixels of the selected photo, upright; null: not decoded yet, or the browser cannot decode it. */
    this._image = null;
    this._repeatTimer = null;
    document.getElementById('photos-close').addEventListener('click', () => this.close());
    document.getElementById('photo-save').addEventListener('click', () => this._save());
    this._strip.addEventListener('keydown', (event) => this._handleKey(event));
    new ResizeObserver(() => this._draw()).observe(this._canvas);
  }

  get isOpen() {
    return !this._root.hidden;
  }

  /** What the view shows, for tests and the console. */
  get debugState() {
    const describe = ({ name, state, outcome }) => {
      return { name, state, error: outcome?.error ?? '', detections: outcome?.answer?.detections.length ?? null };
    };
    const { photos, pending } = this._collection;
    const { format, text } = this._text;
    return { photos: photos.map(describe), pending, selected: photos.indexOf(this._selected), format, text };
  }

  /** Add photos and show the first of them. @param {{file: File, name: string, isPasted: boolean}[]} files */
  add(files) {
    const isOpening = !this.isOpen;
    if (isOpening) this._owner.onOpen();
    this._root.hidden = false;
    document.querySelector('.main-column').dataset.shows = 'photos';
    const added = this._collection.add(files);
    for (const photo of added) this._addButton(photo);
    document.getElementById('photo-limit').hidden = added.length === files.length;
    document.getElementById('photo-limit').textContent = `Only ${MAX_PHOTOS} photos are shown at a time.`;
    if (added.length) this._select(added[0]);
    // What had the keyboard focus may be hidden now.
    if (isOpening) this._buttons.get(added[0]).focus({ preventScroll: true });
  }

  /** Analyse all photos again, because a setting or the key has changed. */
  repeatSoon() {
    if (!this.isOpen) return;
    clearTimeout(this._repeatTimer);
    this._repeatTimer = setTimeout(() => this._collection.repeat(), REPEAT_DELAY_MS);
  }

  /** Forget the photos. Does nothing if the view is not open. */
  close() {
    if (!this.isOpen) return;
    clearTimeout(this._repeatTimer);
    this._collection.clear();
    this._buttons.clear();
    this._strip.replaceChildren();
    this._setImage(null);
    this._selected = null;
    const hadFocus = this._root.contains(document.activeElement);
    this._root.hidden = true;
    document.querySelector('.main-column').dataset.shows = 'video';
    this._owner.onClose();
    if (hadFocus) document.querySelector('.start [data-source=photos]').focus();
  }

  _addButton(photo) {
    const button = document.createElement('button');
    button.type = 'button';
    button.className = 'thumbnail';
    button.title = photo.name;
    const canvas = document.createElement('canvas');
    const count = document.createElement('span');
    button.append(canvas, count);
    button.addEventListener('click', () => this._select(photo));
    this._buttons.set(photo, button);
    this._strip.append(button);
    this._update(photo);
    drawThumbnail(canvas, photo.file);
  }

  async _select(photo) {
    this._selected = photo;
    for (const [other, button] of this._buttons) {
      button.setAttribute('aria-pressed', String(other === photo));
      button.tabIndex = other === photo ? 0 : -1;
    }
    this._buttons.get(photo).scrollIntoView?.({ block: 'nearest', inline: 'nearest' });
    this._setImage(null);
    this._showSelected();
    const image = await decode(photo.file);
    if (this._selected !== photo) image?.close();
    else this._setImage(image);
  }

  /** @param {import('./photo-collection.js').Photo} photo whose state has changed */
  _update(photo) {
    const button = this._buttons.get(photo);
    if (!button) return;
    const { state, outcome } = photo;
    button.dataset.state = state;
    const count = outcome?.answer?.detections.length;
    const text = { done: String(count), failed: '!' }[state] ?? '…';
    button.lastElementChild.textContent = text;
    const meaning = { done: `${count} ${count === 1 ? 'object' : 'objects'}`, failed: 'failed' }[state] ?? 'in progress';
    button.setAttribute('aria-label', `${photo.name}, ${meaning}`);
    if (photo === this._selected) this._showSelected();
    if (outcome?.needsKey && state === 'failed') this._owner.onKeyRequired();
  }

  _showSelected() {
    const { name, state, outcome } = this._selected;
    this._status.dataset.state = state;
    this._status.textContent = `${name} · ${STATE_TEXTS[state] ?? (outcome.answer ? describeAnswer(outcome.answer) : outcome.error)}`;
    this._text.show(this._selected);
    this._draw();
  }

  _handleKey(event) {
    const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const { photos } = this._collection;
    const next = photos[photos.indexOf(this._selected) + step];
    if (!next) return;
    this._select(next);
    this._buttons.get(next).focus();
  }

  _setImage(image) {
    this._image?.close();
    this._image = image;
    this._draw();
  }

  _draw() {
    const ratio = window.devicePixelRatio || 1;
    const canvas = this._canvas;
    canvas.width = Math.round(canvas.clientWidth * ratio);
    canvas.height = Math.round(canvas.clientHeight * ratio);
    this._drawOn(canvas, ratio);
  }

  /** Draw the selected photo and its boxes, as large as fits. */
  _drawOn(canvas, pixelRatio) {
    const answer = this._selected?.outcome?.answer;
    const size = this._image ?? answer?.image;
    if (!size || !canvas.width || !canvas.height) return;
    const context = canvas.getContext('2d');
    const placement = place(size, canvas, 'contain', false);
    if (this._image) context.drawImage(this._image, placement.left, placement.top, placement.width, placement.height);
    if (answer) drawBoxes(context, { ...sceneOf(answer), placement, pixelRatio });
  }

  /** Save the photo with its boxes as a PNG file, in its own size. */
  async _save() {
    if (!this._image) return;
    const canvas = document.createElement('canvas');
    canvas.width = this._image.width;
    canvas.height = this._image.height;
    this._drawOn(canvas, Math.max(1, canvas.width / SAVED_BASE_WIDTH_PX));
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, 'image/png'));
    if (blob) saveFile(blob, `${this._selected.name.replace(/\.[^.]*$/, '')}-boxes.png`);
  }
}

/** @returns {Promise<ImageBitmap | null>} upright; null if the browser cannot decode the file */
function decode(file, options = {}) {
  return createImageBitmap(file, { imageOrientation: 'from-image', ...options }).catch(() => null);
}

async function drawThumbnail(canvas, file) {
  const image = await decode(file, { resizeHeight: THUMBNAIL_PX });
  if (!image) return;
  canvas.width = canvas.height = THUMBNAIL_PX;
  const placement = place(image, canvas, 'cover', false);
  canvas.getContext('2d').drawImage(image, placement.left, placement.top, placement.width, placement.height);
  image.close();
}
