// Puts the page together: source → pipeline → connection → stage, and what the controls change about them.

import { listCameras } from './camera.js';
import { ClassPanel } from './class-panel.js';
import { Connection } from './connection.js';
import { Controls } from './controls.js';
import { DriftLight } from './drift-light.js';
import { FrameClock } from './frame-clock.js';
import { exposeDemo } from './hook.js';
import { Notice } from './notice.js';
import { Pipeline } from './pipeline.js';
import { cameraProblem, closeProblem, fileProblem, holdText, keyProblem } from './problems.js';
import { SamplingPanel } from './sampling-panel.js';
import { loadKey, loadSettings, openStorage, saveKey, saveSettings } from './settings.js';
import { Source } from './source.js';
import { Stage } from './stage.js';
import { StartView } from './start-view.js';
import { StatisticsPanel } from './statistics-panel.js';
import { Status } from './status.js';
import { takeTicket } from './ticket.js';
import { Transport } from './transport.js';
import { Tuning } from './tuning.js';
import { VideoConnection } from './video-connection.js';

const PANEL_EVERY_MS = 250;
/** Longest name of a stream that the server takes. */
const NAME_MAX = 100;

class App {
  constructor() {
    const byId = (id) => document.getElementById(id);
    const address = new URLSearchParams(location.search);
    this.storage = openStorage();
    this.settings = loadSettings(this.storage, address);
    this.key = loadKey();
    this.models = {};
    this.userPaused = false;
    this.cameraMuted = false;
    this.wasPaused = false;
    this.attempt = 0;
    /** Newest result message, of whatever view; null until there is one. */
    this.latest = null;
    this.spinner = byId('spinner');
    this.video = byId('video');

    const stage = { root: byId('stage'), video: this.video, canvas: byId('overlay') };
    this.stage = new Stage(stage, (row) => this.wants(row));
    this.source = new Source(this.video, {
      onLost: () => this.fail(cameraProblem('lost')),
      onMuted: (muted) => this.pause({ cameraMuted: muted }),
    });
    const socket = new Connection({
      takeToken: () => takeTicket(this.key),
      makeHello: (resume, token) => this.tuning.hello(token, resume),
      onMessage: (message) => this.heard(message),
      onState: (state) => this.connectionChanged(state),
      expecting: () => this.pipeline.flow.inFlight > 0 || this.pipeline.flow.win === 0,
      takePing: (nowMs) => this.pipeline.flow.takePing(nowMs),
      acks: () => ({ 0: this.pipeline.flow.ack }),
    });
    const videoConnection = new VideoConnection({
      makeWishes: () => this.tuning.wishes,
      key: () => this.key,
      makeStream: () => this.source.stream,
      // By the address only: remembered, it would be in the way where there is no TURN server.
      icePolicy: address.get('ice') === 'relay' ? 'relay' : 'all',
      onMessage: (message) => this.heard(message),
      onState: (state) => this.connectionChanged(state),
      onEncoded: (frame) => this.pipeline.encoded(frame),
      onUnusable: (reason) => this.connection.fallBack(reason),
    });
    this.connection = new Transport(socket, videoConnection, () => this.settings.transport);
    this.pipeline = new Pipeline(this.connection, (result, frame) => this.show(result, frame));
    this.clock = new FrameClock(this.video, (nowMs, capturedMs) => {
      this.pipeline.offer(this.video, nowMs, capturedMs);
      this.stage.videoFrame(nowMs);
    });
    this.statistics = new StatisticsPanel(byId('stats'));
    this.status = new Status(() => this.connection.retryNow());
    this.startView = new StartView(this.status, {
      isIdle: () => this.connection.state.name === 'idle',
      onModels: (models) => this.modelsKnown(models),
    });
    this.notice = new Notice(
      byId('notice'),
      (action) => this.act(action),
      (action) => action !== 'sample' || this.startView.hasSample,
    );
    this.classes = new ClassPanel(
      {
        seen: byId('seen'),
        hint: byId('seen-hint'),
        all: byId('class-list'),
        search: byId('class-search'),
        reset: byId('classes-reset'),
      },
      (labels) => this.change({ classes: { ...this.settings.classes, [this.settings.version]: labels } }),
    );
    this.sampling = new SamplingPanel(
      {
        button: byId('report'),
        field: byId('keep-field'),
        toggle: byId('keep'),
        hint: byId('samples-hint'),
        start: byId('start-hint'),
      },
      {
        report: () => this.connection.send({ type: 'report', stream: 0 }),
        keep: (keep) => this.change({ keep }),
      },
    );
    this.drift = new DriftLight(byId('drift-light'), () => this.key);
    this.tuning = new Tuning(
      this.settings,
      // A page that shows a certain camera names it: /?stream=gate-3
      (address.get('stream') || 'demo-page').slice(0, NAME_MAX),
      () => this.classes.chosen,
      (message) => this.connection.send(message),
    );
    this.controls = new Controls({
      play: (kind, options) => this.play(kind, options),
      stop: () => this.stop(),
      togglePause: () => this.pause({ userPaused: !this.userPaused }),
      change: (change) => this.change(change),
      flipCamera: () => this.flipCamera(),
      snapshot: () => this.snapshot(),
      useKey: (key) => this.useKey(key),
    });
    document.addEventListener('visibilitychange', () => this.pause({}));
    window.addEventListener('pagehide', () => this.connection.close());
    // Taken back out of the browser's page cache: the picture goes on, so must the stream.
    window.addEventListener('pageshow', (event) => {
      if (event.persisted && this.source.kind) this.connection.open(this.settings.version);
    });
    setInterval(() => this.refresh(), PANEL_EVERY_MS);
    navigator.mediaDevices?.addEventListener?.('devicechange', () => this.showCameras());
    this.applyView();
    this.begin(address);
  }

  async begin(address) {
    this.sampling.watch();
    this.drift.watch();
    await Promise.all([this.startView.lookForSample(), this.startView.watch()]);
    if (this.startView.hasSample) this.controls.showSample();
    const source = address.get('source');
    if (source !== 'sample' && source !== 'camera') return;
    if (address.get('autostart') === '1') this.play(source);
    else document.querySelector(`.start [data-source=${source}]`).focus();
  }

  // -- source ------------------------------------------------------------------------------------

  async play(kind, options = {}) {
    const attempt = ++this.attempt;
    this.notice.hide();
    this.busy(kind === 'camera' ? 'Waiting for the camera – allow it if the browser asks' : 'Opening the video …');
    this.setPhase('running');
    this.userPaused = this.cameraMuted = false;
    this.latest = null;
    this.pipeline.cut();
    this.stage.clear();
    this.classes.forgetSeen();
    try {
      if (kind === 'camera') await this.openCamera(options);
      else if (kind === 'file') await this.source.openFile(options.file);
      else await this.source.openSample();
    } catch (error) {
      if (attempt !== this.attempt) return;
      this.fail(kind === 'camera' ? cameraProblem(error.name) : fileProblem(options.file?.name ?? 'the sample'));
      return;
    }
    if (attempt !== this.attempt) return;
    this.busy(null);
    this.applyView();
    this.clock.start();
    if (['idle', 'key', 'stopped'].includes(this.connection.state.name)) {
      this.pipeline.resetMeasurements();
      this.connection.open(this.settings.version);
    } else {
      this.connection.sourceChanged();
    }
    this.pause({});
    this.showCameras();
  }

  async openCamera({ cameraId, facing }) {
    if (cameraId) this.remember({ cameraId });
    if (facing) this.remember({ cameraId: '', facing });
    await this.source.openCamera({ deviceId: this.settings.cameraId, facing: this.settings.facing });
  }

  stop() {
    this.attempt += 1;
    this.clock.stop();
    this.source.close();
    this.connection.close();
    this.pipeline.inFlight.clear();
    this.pipeline.recent.clear();
    this.stage.clear();
    this.busy(null);
    this.notice.hide();
    this.setPhase('idle');
    this.showCameras();
    this.startView.watch();
  }

  /** The source does not work: say why, and let the server go. */
  fail(problem) {
    this.stop();
    this.notice.show(problem);
  }

  async flipCamera() {
    const cameras = await listCameras();
    const { facingMode } = this.video.srcObject?.getVideoTracks()[0]?.getSettings() ?? {};
    if (facingMode) return this.play('camera', { facing: facingMode === 'user' ? 'environment' : 'user' });
    const index = cameras.findIndex(({ id }) => id === this.source.cameraId);
    return this.play('camera', { cameraId: cameras[(index + 1) % cameras.length]?.id });
  }

  async showCameras() {
    this.controls.showCameras(await listCameras(), this.source.cameraId);
  }

  /** Pause for any reason: the person, a hidden tab, a covered camera. The server is told. */
  pause(reasons) {
    Object.assign(this, reasons);
    const paused = this.userPaused || this.cameraMuted || document.hidden;
    this.connection.sleep(document.hidden);
    if (paused !== this.wasPaused) {
      this.wasPaused = this.pipeline.paused = paused;
      this.connection.send({ type: paused ? 'pause' : 'resume', stream: 0 });
    }
    if (this.source.kind) {
      if (this.userPaused) this.video.pause();
      else if (this.video.paused) this.video.play().catch(() => {});
    }
    this.controls.showPlaying({ kind: this.source.kind, paused: this.userPaused });
  }

  // -- settings ----------------------------------------------------------------------------------

  change(change) {
    const { version, transport } = this.settings;
    this.remember(change);
    this.applyView();
    this.stage.redraw();
    // All three are said when the stream is opened, and only then.
    if (this.settings.version !== version || this.settings.transport !== transport || 'keep' in change) this.reopen();
    else if ('threshold' in change || 'track' in change || 'classes' in change) this.tuning.changed();
  }

  remember(change) {
    Object.assign(this.settings, change);
    saveSettings(this.storage, this.settings);
  }

  applyView() {
    const { view, fit, mirror } = this.settings;
    const mirrored = this.source.kind === 'camera' ? (mirror ?? this.source.facesUser) : (mirror ?? false);
    this.stage.set({ view, fit, mirror: mirrored });
    this.pipeline.keepImages = view === 'synced';
    this.controls.showSettings(this.settings, this.tuning.threshold, mirrored);
    this.sampling.showKeep(this.settings.keep);
    this.controls.showModels(this.models, this.settings.version);
  }

  /** Another model, or another way to it. */
  reopen() {
    this.latest = null;
    this.stage.clear();
    this.pipeline.resetMeasurements();
    if (this.connection.state.name !== 'idle') this.connection.open(this.settings.version);
  }

  wants(row) {
    return this.tuning.wants(row, this.stage.labels);
  }

  useKey(key) {
    this.key = key;
    saveKey(key);
    this.notice.hide();
    if (this.connection.state.name !== 'idle') this.connection.open(this.settings.version);
  }

  // -- server ------------------------------------------------------------------------------------

  heard(message) {
    const nowMs = performance.now();
    if (message.type === 'welcome') this.welcomed(message, nowMs);
    else if (message.type === 'reported') this.sampling.reported(message);
    else this.pipeline.heard(message, nowMs);
    if (message.type === 'flow') this.showHold();
  }

  welcomed(message, nowMs) {
    const { version, labels, name } = message.model;
    this.pipeline.welcomed(message, nowMs);
    this.stage.labels = labels;
    this.models[version] ??= { name, classes: labels.length };
    this.classes.setModel(labels, this.settings.classes[version] ?? []);
    this.controls.showModels(this.models, this.settings.version);
    this.tuning.welcomed(message.params);
    this.applyView(); // the threshold may be the model's own, known only now
    if (this.wasPaused) this.connection.send({ type: 'pause', stream: 0 });
  }

  show(result, frame) {
    this.latest = result;
    this.stage.show(result, frame.image);
    this.classes.count(result.boxes.filter((row) => this.wants(row)), performance.now());
  }

  connectionChanged(state) {
    if (state.name !== 'open') this.pipeline.inFlight.clear();
    this.controls.showFallback(this.connection.fallback);
    if (state.name === 'waiting') {
      this.status.pill('bad', 'Reconnecting');
      this.status.banner(state.reason || 'The connection to the server was lost', state.retryAtMs);
    } else if (state.name === 'key') {
      this.status.pill('bad', 'Key needed');
      this.refused(keyProblem(Boolean(this.key)));
    } else if (state.name === 'stopped') {
      this.status.pill('bad', 'Closed by the server');
      this.refused(closeProblem(state.code, state.reason));
    } else if (state.name === 'connecting') {
      this.status.pill('busy', 'Connecting …');
    } else if (state.name === 'open') {
      this.notice.hide();
      this.showHold();
    } else {
      this.status.noBanner();
    }
  }

  refused(problem) {
    this.status.noBanner();
    this.notice.show(problem);
  }

  showHold() {
    const held = this.pipeline.flow.win === 0;
    const way = this.connection.carriesVideo ? ' · WebRTC' : '';
    this.status.pill(held ? 'busy' : 'open', held ? 'Waiting' : `Live · ${this.settings.version}${way}`);
    if (held) this.status.banner(holdText(this.pipeline.flow.holdReason));
    else this.status.noBanner();
  }

  modelsKnown(models) {
    this.models = models;
    if (!(this.settings.version in models)) [this.settings.version] = Object.keys(models);
    this.applyView();
  }

  // -- picture -----------------------------------------------------------------------------------

  act(action) {
    const acts = {
      retry: () => this.play('camera'),
      file: () => this.controls.choose('file'),
      sample: () => this.play('sample'),
      key: () => this.controls.askForKey(),
      reconnect: () => {
        this.notice.hide();
        this.connection.open(this.settings.version);
      },
    };
    acts[action]();
  }

  async snapshot() {
    const blob = await this.stage.snapshot();
    if (!blob) return;
    const link = document.createElement('a');
    link.href = URL.createObjectURL(blob);
    link.download = `detections-${new Date().toISOString().slice(0, 19).replace(/[T:]/g, '-')}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  busy(text) {
    this.spinner.hidden = text === null;
    if (text !== null) document.getElementById('spinner-text').textContent = text;
  }

  setPhase(phase) {
    document.getElementById('stage').dataset.phase = phase;
    document.getElementById('start').hidden = phase !== 'idle';
    this.controls.showPlaying({ kind: phase === 'idle' ? null : this.source.kind, paused: false });
  }

  refresh() {
    const nowMs = performance.now();
    if (document.hidden) return;
    const { carriesVideo, video } = this.connection;
    this.statistics.update(this.pipeline.measured, nowMs, carriesVideo ? video.quality : null);
    this.classes.update(nowMs);
  }
}

exposeDemo(new App());
