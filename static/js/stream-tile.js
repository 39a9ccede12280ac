// Plays one more source beside the player, with a WebSocket stream, a pipeline and a stage of its own.

import { describeCounts } from './announcer.js';
import { FrameLoop } from './frame-loop.js';
import { Freshness, staleText } from './freshness.js';
import { isMirrored, isTextLabel } from './mirror.js';
import { Pipeline } from './pipeline.js';
import { SessionOptions } from './session-options.js';
import { Stage } from './stage.js';
import { milliseconds } from './statistics.js';
import { VideoSource } from './video-source.js';
import { VIEW_DELAYS, ViewChoice } from './view-choice.js';
import { WebSocketConnection } from './websocket-connection.js';

export class StreamTile {
  /**
   * @param {object} owner
   * @param {object} owner.settings settings of the page, shared with all other streams
   * @param {() => string} owner.key API key; empty: none
   * @param {() => string[]} owner.selectedLabels labels of the classes to detect; empty: all
   * @param {(tile: StreamTile) => void} owner.onClosed the source has ended, or the user has closed it
   * @param {number} number that distinguishes the tile; the player is 1
   * @param {string} streamName the server files samples under it
   */
  constructor(owner, number, streamName) {
    this._owner = owner;
    this._number = number;
    this.element = document.getElementById('tile-template').content.firstElementChild.cloneNode(true);
    const find = (selector) => this.element.querySelector(selector);
    this._name = find('.stream-name');
    this._numbers = find('.tile-numbers');
    this._message = find('.tile-message');
    this._boxesButton = find('.tile-boxes');
    this._counts = new Map();
    /** Changes with each `open` and `close`, so that a source that opens too late is ignored. */
    this._attempt = 0;
    this._viewChoice = new ViewChoice();
    this._freshness = new Freshness();
    this._showsBoxes = true;
    this._hasSeenText = false;
    const video = find('video');
    this._source = new VideoSource(video, {
      onCameraLost: () => this.close(),
      onCameraMuted: () => {},
    });
    this._stage = new Stage(
      { root: find('.tile-stage'), video, canvas: find('canvas') },
      (box) => this._showsBoxes && this._isVisible(box),
      (time, paintedMs) => this._pipeline.measurements.delay.add(time, paintedMs),
    );
    this._connection = this._createConnection();
    this._sessionOptions = new SessionOptions(owner.settings, streamName, owner.selectedLabels, (message) =>
      this._connection.send(message),
    );
    this._pipeline = new Pipeline(this._connection, (...result) => this._showResult(...result));
    this._frameLoop = new FrameLoop(video, (frame, nowMs, time) => {
      this._stage.handleVideoFrame(nowMs, time);
      return this._pipeline.processFrame(frame, nowMs, time);
    });
    this._boxesButton.setAttribute('aria-label', `Show boxes of stream ${number}`);
    this._boxesButton.addEventListener('click', () => this._showBoxes(!this._showsBoxes));
    find('.enlarge').setAttribute('aria-label', `Enlarge stream ${number}`);
    find('.tile-close').setAttribute('aria-label', `Close stream ${number}`);
    find('.tile-close').addEventListener('click', () => this.close());
  }

  /** Id of the camera that this tile shows; empty: none. */
  get cameraId() {
    return this._source.cameraId;
  }

  get resultCount() {
    return this._pipeline.measurements.resultCount;
  }

  /**
   * @param {'camera' | 'file' | 'screen' | 'sample'} kind
   * @param {{file?: File, cameraId?: string}} options
   * @throws {DOMException} see video-source.js
   */
  async open(kind, { file, cameraId }) {
    this._showName('');
    this._counts.clear();
    this._hasSeenText = false;
    this._showBoxes(true);
    this._stage.clear();
    this._pipeline.markDiscontinuity();
    this._pipeline.resetMeasurements();
    this._setMessage('Opening …');
    const attempt = ++this._attempt;
    try {
      if (kind === 'camera') await this._source.openCamera({ deviceId: cameraId });
      else if (kind === 'file') await this._source.openFile(file);
      else if (kind === 'screen') await this._source.openScreen();
      else await this._source.openSample();
    } catch (error) {
      if (attempt === this._attempt) throw error;
    }
    // The tile has been closed meanwhile, and may show another source by now.
    if (attempt !== this._attempt) return;
    this._showName(this._source.name);
    this._frameLoop.start();
    this._freshness.restart(performance.now());
    this.showSettings();
    this.reopen();
  }

  /** Stop the source and the stream, also one that is still being opened. The tile can be opened again. */
  close() {
    this._attempt += 1;
    this._frameLoop.stop();
    this._source.close();
    this._connection.close();
    this._pipeline.clearPending();
    this._stage.clear();
    this._owner.onClosed(this);
  }

  /** Open a new session, because of a setting that only a new one can have. */
  reopen() {
    this._stage.clear();
    this._connection.open(this._owner.settings.version);
  }

  /** Send the parameters of the settings to the open session. */
  configure() {
    this._sessionOptions.configureSoon();
  }

  showSettings() {
    const { fit } = this._owner.settings;
    const view = this._view;
    const state = { isUserFacing: this._source.isUserFacing, labels: this._stage.labels, hasSeenText: this._hasSeenText };
    this._stage.setOptions({ view, fit, mirror: isMirrored(state) });
    this._pipeline.keepImages = view === 'synced';
  }

  /** @param {boolean} paused whether to send no frames, because the tab is hidden */
  setPaused(paused) {
    this._connection.setHidden(paused);
    if (paused === this._pipeline.paused) return;
    this._pipeline.paused = paused;
    this._connection.send({ type: paused ? 'pause' : 'resume', stream: 0 });
  }

  /** Show rate, delay and counts, or that results have stopped. @param {number} nowMs */
  update(nowMs) {
    if (this._stage.view !== this._view) this.showSettings();
    const state = this._freshness.update({ playing: this._source.kind !== null, paused: this._pipeline.paused }, nowMs);
    this.element.dataset.results = state;
    const text = state === 'stale' ? staleText(this._freshness.ageMs(nowMs)) : this._describe(nowMs);
    if (this._numbers.textContent !== text) this._numbers.textContent = text;
  }

  _showName(name) {
    this._name.textContent = this._name.title = name;
    this.element.setAttribute('aria-label', `Stream ${this._number}${name && `: ${name}`}`);
  }

  _describe(nowMs) {
    const { results, delay } = this._pipeline.measurements;
    const delayMs = delay.quantile(0.5);
    const parts = [`${results.perSecond(nowMs).toFixed(1)} fps`];
    if (delayMs !== null) parts.push(`${milliseconds(delayMs)} ms`);
    return [...parts, describeCounts([...this._counts])].filter(Boolean).join(' · ');
  }

  _showBoxes(shown) {
    this._showsBoxes = shown;
    this._boxesButton.setAttribute('aria-pressed', String(shown));
    this._stage.requestDraw();
  }

  get _view() {
    const { delay, unmatched } = this._pipeline.measurements;
    const measured = { delayMs: delay.quantile(0.5, VIEW_DELAYS), unmatched };
    return this._viewChoice.choose(this._owner.settings.view, this._source.kind, measured);
  }

  _createConnection() {
    return new WebSocketConnection({
      key: this._owner.key,
      onMessage: (message) => this._handleMessage(message),
      onState: (state) => this._handleState(state),
      makeHello: (resume, token) => this._sessionOptions.hello(token, resume),
      expectsMessage: () => this._pipeline.flow.inFlight > 0 || this._pipeline.flow.isOnHold,
      takePingDue: (nowMs) => this._pipeline.flow.takePingDue(nowMs),
      acks: () => ({ 0: this._pipeline.flow.ack }),
    });
  }

  _handleMessage(message) {
    const nowMs = performance.now();
    if (message.type !== 'welcome') {
      this._pipeline.handleMessage(message, nowMs);
      // The server may have changed the model.
      if (message.type === 'configured' && message.model) this._stage.labels = message.model.labels;
      if (message.type === 'flow') this._handleState(this._connection.state);
      return;
    }
    this._pipeline.handleWelcome(message, nowMs);
    this._stage.labels = message.model.labels;
    this._sessionOptions.handleWelcome(message.params);
    this.showSettings();
    if (this._pipeline.paused) this._connection.send({ type: 'pause', stream: 0 });
  }

  _handleState({ name, reason }) {
    if (name !== 'open') this._pipeline.pending.clear();
    const texts = {
      idle: '',
      connecting: 'Connecting …',
      open: this._pipeline.flow.isOnHold ? 'The server has put the stream on hold' : '',
      waiting: reason || 'The connection to the server was lost',
      keyRequired: 'API key required',
      stopped: reason || 'Closed by the server',
    };
    this._setMessage(texts[name]);
  }

  _setMessage(text) {
    this._message.hidden = !text;
    if (this._message.textContent !== text) this._message.textContent = text;
  }

  _showResult(result, image, time) {
    this._freshness.addResult(performance.now());
    this._stage.showResult(result, image, time);
    const { labels } = this._stage;
    const visible = result.boxes.filter((box) => this._isVisible(box)).map((box) => labels[box[5]] ?? `class ${box[5]}`);
    this._counts.clear();
    for (const label of visible) this._counts.set(label, (this._counts.get(label) ?? 0) + 1);
    if (!this._hasSeenText && visible.some(isTextLabel)) {
      this._hasSeenText = true;
      this.showSettings();
    }
  }

  _isVisible(box) {
    return this._sessionOptions.accepts(box, this._stage.labels);
  }
}
