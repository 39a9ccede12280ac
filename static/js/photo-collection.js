// The photos that the user has chosen, and their analysis, one after the other.

import { analysePhoto } from './photo-analysis.js';

/** More photos than this are refused: each keeps its file in memory. */
export const MAX_PHOTOS = 100;

/**
 * @typedef {object} Photo
 * @property {Blob} file
 * @property {string} name
 * @property {boolean} isPasted whether it comes from the clipboard, and so is no file of the user
 * @property {'waiting' | 'running' | 'done' | 'failed'} state
 * @property {string} url address of its analysis; empty while it waits
 * @property {import('./photo-analysis.js').PhotoOutcome | null} outcome of the last analysis
 */

export class PhotoCollection {
  /**
   * @param {object} owner
   * @param {() => string} owner.url address that analyses an image with the present settings
   * @param {() => string} owner.key API key; empty: none
   * @param {(photo: Photo) => void} owner.onChange the state of a photo has changed
   */
  constructor(owner) {
    this._owner = owner;
    this._abort = new AbortController();
    this._isRunning = false;
    /** @type {Photo[]} */
    this.photos = [];
  }

  /** Number of photos whose analysis is not finished. */
  get pending() {
    return this.photos.filter(({ state }) => state === 'waiting' || state === 'running').length;
  }

  /**
   * Add photos and analyse them.
   * @param {{file: Blob, name: string, isPasted: boolean}[]} files
   * @returns {Photo[]} those that were added; fewer if there would be more than MAX_PHOTOS
   */
  add(files) {
    const room = MAX_PHOTOS - this.photos.length;
    const added = files.slice(0, room).map((entry) => ({ ...entry, state: 'waiting', url: '', outcome: null }));
    this.photos.push(...added);
    this._run();
    return added;
  }

  /** Analyse all photos again, because a setting has changed. */
  repeat() {
    this._cancel();
    for (const photo of this.photos) {
      photo.state = 'waiting';
      this._owner.onChange(photo);
    }
    this._run();
  }

  /** Forget all photos. */
  clear() {
    this._cancel();
    this.photos = [];
  }

  _cancel() {
    this._abort.abort();
    this._abort = new AbortController();
    this._isRunning = false;
  }

  async _run() {
    if (this._isRunning) return;
    this._isRunning = true;
    const { signal } = this._abort;
    for (;;) {
      const photo = this.photos.find(({ state }) => state === 'waiting');
      if (!photo) break;
      photo.state = 'running';
      photo.url = this._owner.url();
      this._owner.onChange(photo);
      try {
        photo.outcome = await analysePhoto(photo.file, photo.url, this._owner.key(), signal);
      } catch {
        return; // Cancelled: whoever cancelled it has started another run or removed the photo.
      }
      photo.state = photo.outcome.answer ? 'done' : 'failed';
      this._owner.onChange(photo);
    }
    this._isRunning = false;
  }
}
