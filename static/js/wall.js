// Shows several streams at once: further cameras, files and tabs in a grid with the player.

import { listCameras } from './camera.js';
import { changesDetection } from './detection-parameters.js';
import { EnlargedStream } from './enlarged-stream.js';
import { cameraError, fileError } from './error-messages.js';
import { StreamTile } from './stream-tile.js';

/** With the player nine streams, three rows of three. Each takes a decoder, an encoder and a connection. */
export const MAX_TILES = 8;
/** Longest stream name that the server accepts. */
const MAX_STREAM_NAME = 100;

/**
 * Return the camera to open next: one that is not shown yet, else the first. Pure.
 * @param {{id: string, name: string}[]} cameras
 * @param {string[]} shownIds ids of the cameras that are shown
 * @returns {{id: string, name: string} | undefined} undefined: the browser names no cameras before one is allowed
 */
export function nextCamera(cameras, shownIds) {
  return cameras.find(({ id }) => !shownIds.includes(id)) ?? cameras[0];
}

export class Wall {
  /**
   * @param {object} owner
   * @param {object} owner.settings settings of the page
   * @param {() => string} owner.key API key; empty: none
   * @param {() => string[]} owner.selectedLabels labels of the classes to detect; empty: all
   * @param {() => string} owner.playerCameraId id of the player's camera; empty: none
   * @param {(text: string) => void} owner.announce
   * @param {() => void} owner.onChange the number of tiles has changed
   * @param {string} streamName name of the player's stream; the names of the tiles begin with it
   */
  constructor(owner, streamName) {
    this._owner = owner;
    this._streamName = streamName;
    /** Tiles that are shown. @type {StreamTile[]} */
    this._tiles = [];
    /** Tiles that were closed. They are used again, because their workers and listeners last as long as the page. */
    this._free = [];
    this._grid = document.getElementById('streams');
    this._player = document.getElementById('player');
    this._enlarged = new EnlargedStream(this._grid);
    this._fileInput = document.getElementById('add-files');
    this._hint = document.getElementById('add-hint');
    for (const button of document.querySelectorAll('[data-add]')) {
      button.addEventListener('click', () => this._choose(button.dataset.add));
    }
    this._fileInput.addEventListener('change', () => {
      for (const file of this._fileInput.files) this.add('file', { file });
      this._fileInput.value = '';
    });
    const screen = document.querySelector('[data-add=screen]');
    screen.hidden = !navigator.mediaDevices?.getDisplayMedia;
    document.addEventListener('visibilitychange', () => this._updatePaused());
  }

  get size() {
    return this._tiles.length;
  }

  /** Number of results of each tile, for tests and the console. */
  get resultCounts() {
    return this._tiles.map((tile) => tile.resultCount);
  }

  /**
   * @param {'camera' | 'file' | 'screen' | 'sample'} kind
   * @param {{file?: File}} options
   */
  async add(kind, { file } = {}) {
    if (this.size >= MAX_TILES) {
      this._showHint(`At most ${MAX_TILES + 1} streams can be shown at once.`);
      return;
    }
    this._showHint('');
    const tile = this._takeTile();
    try {
      const camera = kind === 'camera' ? nextCamera(await listCameras(), this._shownCameras()) : undefined;
      await tile.open(kind, { file, cameraId: camera?.id });
    } catch (error) {
      tile.close();
      // The user has closed the browser's dialog without a choice.
      if (kind === 'screen' && error.name === 'NotAllowedError') return;
      const message = kind === 'camera' ? cameraError(error.name) : fileError(file?.name ?? kind);
      this._showHint(`${message.title}. ${message.text}`);
      return;
    }
    this._owner.announce(`${this.size + 1} streams`);
  }

  /** Follow changed settings. @param {object} changes @param {boolean} needsSession whether a new session is needed */
  handleSettings(changes, needsSession) {
    for (const tile of this._tiles) {
      tile.showSettings();
      if (needsSession) tile.reopen();
      else if (changesDetection(changes) || 'track' in changes) tile.configure();
    }
    if ('background' in changes) this._updatePaused();
  }

  handlePlayerStopped() {
    this._enlarged.release(this._player);
  }

  /** Open new sessions, for example because the key has changed. */
  reopen() {
    for (const tile of this._tiles) tile.reopen();
  }

  /** @param {number} nowMs */
  update(nowMs) {
    for (const tile of this._tiles) tile.update(nowMs);
  }

  showSample() {
    document.querySelector('[data-add=sample]').hidden = false;
  }

  _choose(kind) {
    if (kind === 'file') this._fileInput.click();
    else this.add(kind);
  }

  _takeTile() {
    const tile = this._free.pop() ?? this._createTile();
    this._tiles.push(tile);
    this._grid.append(tile.element);
    this._updateGrid();
    return tile;
  }

  _createTile() {
    const { settings, key, selectedLabels } = this._owner;
    const number = this._tiles.length + this._free.length + 2;
    const suffix = `-${number}`;
    const streamName = this._streamName.slice(0, MAX_STREAM_NAME - suffix.length) + suffix;
    return new StreamTile({ settings, key, selectedLabels, onClosed: (tile) => this._remove(tile) }, number, streamName);
  }

  _remove(tile) {
    if (!this._tiles.includes(tile)) return;
    this._tiles = this._tiles.filter((other) => other !== tile);
    this._free.push(tile);
    const hadFocus = tile.element.contains(document.activeElement);
    tile.element.remove();
    this._updateGrid();
    // Users of a keyboard go on where streams are added.
    if (hadFocus) document.querySelector('#more-streams summary').focus();
  }

  _updateGrid() {
    this._grid.dataset.columns = String(this.size > 3 ? 3 : Math.min(2, this.size + 1));
    this._enlarged.update();
    this._updatePaused();
    this._owner.onChange();
  }

  _updatePaused() {
    for (const tile of this._tiles) tile.setPaused(document.hidden && !this._owner.settings.background);
  }

  _shownCameras() {
    return [this._owner.playerCameraId(), ...this._tiles.map(({ cameraId }) => cameraId)];
  }

  _showHint(text) {
    this._hint.hidden = !text;
    this._hint.textContent = text;
  }
}
