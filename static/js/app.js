// Composes the page: playback → pipeline → transport → stage, and the controls that change them.

import { createPanels } from './create-panels.js';
import { createTransport } from './create-transport.js';
import { exposeDebugState } from './debug-state.js';
import { changesDetection, needsDefaults } from './detection-parameters.js';
import { closeError, keyError } from './error-messages.js';
import { isMirrored, isTextLabel } from './mirror.js';
import { changesPhotos, createPhotoSource } from './photo-source.js';
import { Pipeline } from './pipeline.js';
import { Playback } from './playback.js';
import { SessionOptions } from './session-options.js';
import { loadKey, loadSettings, openStorage, saveKey, saveSettings } from './settings.js';
import { Stage } from './stage.js';
import { VIEW_DELAYS, ViewChoice } from './view-choice.js';
import { Wall } from './wall.js';

const PANEL_INTERVAL_MS = 250;
/** Number of frames from which the model's time is shown. */
const MIN_MODEL_TIMES = 5;
/** Longest stream name that the server accepts. */
const MAX_STREAM_NAME = 100;

class App {
  constructor() {
    const query = new URLSearchParams(location.search);
    this.storage = openStorage();
    this.settings = loadSettings(this.storage, query);
    this.key = loadKey();
    /** The server's models by version. */
    this.models = {};
    /** Time that one frame took the model, in ms by version, as far as this page has measured it. */
    this.modelTimesMs = new Map();
    this.viewChoice = new ViewChoice();
    /** Newest result message; null: none. */
    this.latestResult = null;
    /** Whether this source has shown an object that is read: its video is then not mirrored by default. */
    this.hasSeenText = false;

    const video = document.getElementById('video');
    this.stage = new Stage(
      { root: document.getElementById('stage'), video, canvas: document.getElementById('overlay') },
      (box) => this.isVisible(box),
      (time, paintedMs) => this.pipeline.measurements.delay.add(time, paintedMs),
    );
    this.transport = createTransport(this, query);
    this.pipeline = new Pipeline(this.transport, (result, image, time) => this.showResult(result, image, time));
    createPanels(this);
    this.playback = this.createPlayback(video);
    this.photos = createPhotoSource({
      settings: this.settings,
      key: () => this.key,
      selectedLabels: () => this.classPanel.selectedLabels,
      playback: this.playback,
      controls: this.controls,
    });
    // A page that shows one particular camera can name its stream: /?stream=gate-3
    const streamName = (query.get('stream') || 'demo-page').slice(0, MAX_STREAM_NAME);
    this.sessionOptions = new SessionOptions(
      this.settings,
      streamName,
      () => this.classPanel.selectedLabels,
      (message) => this.transport.send(message),
    );
    this.wall = new Wall(
      {
        settings: this.settings,
        key: () => this.key,
        selectedLabels: () => this.classPanel.selectedLabels,
        playerCameraId: () => this.playback.sourceKey,
        announce: (text) => this.announcer.say(text),
        onChange: () => this.updateWakeLock(),
      },
      streamName,
    );
    window.addEventListener('pagehide', () => this.transport.close());
    // A page restored from the browser's back/forward cache continues to play: open its session again.
    window.addEventListener('pageshow', (event) => {
      if (event.persisted && this.playback.kind) this.transport.open(this.settings.version);
    });
    setInterval(() => this.updatePanels(), PANEL_INTERVAL_MS);
    this.showSettings();
    this.start(query);
  }

  createPlayback(video) {
    const owner = {
      onStarting: () => this.prepareSource(),
      onStarted: () => this.openSource(),
      onStopped: () => this.handleStopped(),
      onError: (message) => this.errorPanel.show(message),
      onPaused: (paused) => this.setPaused(paused),
      onFrame: (frame, nowMs, time) => {
        this.stage.handleVideoFrame(nowMs, time);
        return this.pipeline.processFrame(frame, nowMs, time);
      },
      saveSettings: (changes) => this.saveSettings(changes),
    };
    return new Playback(video, this.settings, owner, this.controls);
  }

  async start(query) {
    this.samplingPanel.poll();
    this.driftPanel.poll();
    await Promise.all([this.startView.checkSample(), this.startView.pollHealth()]);
    if (this.startView.hasSample) {
      this.controls.showSample();
      this.wall.showSample();
    }
    const source = query.get('source');
    if (source !== 'sample' && source !== 'camera') return;
    if (query.get('autostart') === '1') this.playback.play(source);
    else document.querySelector(`.start [data-source=${source}]`).focus();
  }

  // -- source ------------------------------------------------------------------------------------

  prepareSource() {
    this.photos.close();
    this.errorPanel.hide();
    this.latestResult = null;
    this.hasSeenText = false;
    this.pipeline.markDiscontinuity();
    this.pipeline.measurements.delay.clear();
    this.resultsStatus.restart();
    this.pipeline.measurements.unmatched = 0;
    this.viewChoice.restart();
    if (this.settings.sound) this.resultsStatus.prepareSound();
    this.stage.clear();
    this.classPanel.clearDetected();
    this.announcer.clearCounts();
  }

  openSource() {
    this.showSettings();
    if (['idle', 'keyRequired', 'stopped'].includes(this.transport.state.name)) {
      this.pipeline.resetMeasurements();
      this.transport.open(this.settings.version);
    } else {
      this.transport.replaceSource();
    }
  }

  handleStopped() {
    this.wall.handlePlayerStopped();
    this.transport.close();
    this.pipeline.clearPending();
    this.stage.clear();
    this.errorPanel.hide();
    this.startView.pollHealth();
    this.updateWakeLock();
    this.announcer.say('Stopped');
  }

  setPaused(paused) {
    this.transport.setHidden(this.playback.isHidden);
    this.updateWakeLock();
    this.updateResultsStatus(performance.now());
    if (paused === this.pipeline.paused) return;
    this.pipeline.paused = paused;
    this.announcer.say(paused ? 'Paused' : 'Playing');
    this.transport.send({ type: paused ? 'pause' : 'resume', stream: 0 });
  }

  updateWakeLock() {
    const { kind, paused } = this.playback;
    this.wakeLock.set((kind !== null && !paused) || this.wall.size > 0);
  }

  // -- settings ----------------------------------------------------------------------------------

  changeSettings(changes) {
    const { version, transport } = this.settings;
    this.saveSettings(changes);
    this.showSettings();
    this.stage.requestDraw();
    if (changesPhotos(changes)) this.photos.repeatSoon();
    if (changes.sound) this.resultsStatus.prepareSound();
    // These can only be set when a session is opened, as the transport.
    const needsSession = this.settings.version !== version || 'keep' in changes || needsDefaults(changes);
    this.wall.handleSettings(changes, needsSession);
    if (needsSession || this.settings.transport !== transport) {
      this.reopenSession();
    } else if (changesDetection(changes) || 'track' in changes) {
      this.sessionOptions.configureSoon();
    }
  }

  saveSettings(changes) {
    Object.assign(this.settings, changes);
    saveSettings(this.storage, this.settings);
  }

  showSettings() {
    const { fit, mirrors } = this.settings;
    const { view } = this;
    const { isUserFacing, sourceKey } = this.playback;
    const choice = mirrors[sourceKey];
    const mirrored = isMirrored({ choice, isUserFacing, labels: this.stage.labels, hasSeenText: this.hasSeenText });
    this.stage.setOptions({ view, fit, mirror: mirrored });
    this.pipeline.keepImages = view === 'synced';
    this.controls.showSettings(this.settings, this.sessionOptions.effective, mirrored, view);
    this.theme.show(this.settings.theme);
    this.shortcuts.show(this.settings.shortcuts);
    this.samplingPanel.showKeep(this.settings.keep);
    this.controls.showModels(this.models, this.settings.version, this.modelTimesMs);
  }

  reopenSession() {
    this.latestResult = null;
    this.stage.clear();
    this.pipeline.resetMeasurements();
    if (this.transport.state.name !== 'idle') this.transport.open(this.settings.version);
  }

  setKey(key) {
    this.key = key;
    saveKey(key);
    this.errorPanel.hide();
    this.wall.reopen();
    this.photos.repeatSoon();
    this.driftPanel.poll();
    if (this.transport.state.name !== 'idle') this.transport.open(this.settings.version);
  }

  setModels(models) {
    this.models = models;
    if (!(this.settings.version in models)) [this.settings.version] = Object.keys(models);
    this.showSettings();
  }

  /** The view in effect. @returns {'live' | 'synced'} */
  get view() {
    const { delay, unmatched } = this.pipeline.measurements;
    const measured = { delayMs: delay.quantile(0.5, VIEW_DELAYS), unmatched };
    return this.viewChoice.choose(this.settings.view, this.playback.kind, measured);
  }

  isVisible(box) {
    return this.sessionOptions.accepts(box, this.stage.labels);
  }

  // -- server ------------------------------------------------------------------------------------

  handleMessage(message) {
    const nowMs = performance.now();
    if (message.type === 'welcome') this.handleWelcome(message, nowMs);
    else if (message.type === 'reported') this.samplingPanel.handleReported(message);
    else this.pipeline.handleMessage(message, nowMs);
    if (message.type === 'flow') this.showOpenConnection();
    // The server may have changed the model.
    if (message.type === 'configured' && message.model) this.handleModel(message);
  }

  handleWelcome(message, nowMs) {
    this.pipeline.handleWelcome(message, nowMs);
    if (!message.resumed) this.counts.startSession();
    this.handleModel(message);
    if (this.playback.paused) this.transport.send({ type: 'pause', stream: 0 });
  }

  handleModel({ model: { version, labels, name }, params }) {
    this.stage.labels = labels;
    this.models[version] = { name, classes: labels.length };
    this.classPanel.setModel(labels, this.settings.classes[version] ?? []);
    this.sessionOptions.handleWelcome(params);
    this.showSettings(); // The model's defaults are known only now.
  }

  showResult(result, image, time) {
    this.latestResult = result;
    this.resultsStatus.addResult(performance.now());
    this.stage.showResult(result, image, time);
    const visible = result.boxes.filter((box) => this.isVisible(box));
    this.classPanel.countBoxes(visible, performance.now());
    this.counts.add(visible, this.stage.labels);
    if (!this.hasSeenText && visible.some((box) => isTextLabel(this.stage.labels[box[5]] ?? ''))) {
      this.hasSeenText = true;
      this.showSettings();
    }
  }

  handleConnectionState(state) {
    if (state.name !== 'open') this.pipeline.pending.clear();
    this.controls.showFallback(this.transport.fallbackReason);
    if (state.name === 'open') {
      this.errorPanel.hide();
      this.showOpenConnection();
      return;
    }
    this.status.showState(state);
    if (state.name === 'keyRequired') this.errorPanel.show(keyError(Boolean(this.key)));
    else if (state.name === 'stopped') this.errorPanel.show(closeError(state.code, state.reason));
  }

  showOpenConnection() {
    const transport = this.transport.usesWebRtc ? ' · WebRTC' : '';
    const { name } = this.models[this.settings.version] ?? { name: this.settings.version };
    this.status.showOpen(`Live · ${name}${transport}`, this.pipeline.flow, this.resultsStatus.state);
  }

  /** Run the action of a button of the error panel. */
  runAction(action) {
    const actions = {
      retry: () => this.playback.play('camera'),
      file: () => this.controls.chooseSource('file'),
      sample: () => this.playback.play('sample'),
      key: () => this.controls.focusKey(),
      reconnect: () => {
        this.errorPanel.hide();
        this.transport.open(this.settings.version);
      },
    };
    actions[action]();
  }

  updateResultsStatus(nowMs) {
    const { kind, paused } = this.playback;
    this.resultsStatus.update({ playing: kind !== null, paused }, nowMs);
  }

  /** Show what follows from measurements: the view of a camera, and the model's time. */
  updateMeasured() {
    if (this.stage.view !== this.view) this.showSettings();
    const { inferMs } = this.pipeline.measurements;
    if (inferMs.values.length < MIN_MODEL_TIMES) return;
    this.modelTimesMs.set(this.settings.version, inferMs.quantile(0.5));
    this.controls.showModels(this.models, this.settings.version, this.modelTimesMs);
  }

  updatePanels() {
    const nowMs = performance.now();
    this.updateResultsStatus(nowMs);
    if (document.hidden) return;
    const { usesWebRtc, webRtc } = this.transport;
    this.statistics.update(this.pipeline.measurements, nowMs, usesWebRtc ? webRtc.quality : null);
    this.classPanel.update(nowMs);
    this.updateMeasured();
    this.wall.update(nowMs);
    this.counts.update(nowMs);
    this.announcer.updateCounts(this.classPanel.counts, nowMs);
  }
}

exposeDebugState(new App());
