// Starts, pauses and stops the video source, and shows on the page which one plays.

import { listCameras } from './camera.js';
import { cameraError, fileError } from './error-messages.js';
import { FrameLoop } from './frame-loop.js';
import { VideoSource } from './video-source.js';

export class Playback {
  /**
   * @param {HTMLVideoElement} video
   * @param {object} settings settings of the page; `cameraId`, `facing` and `background` are read
   * @param {object} owner
   * @param {() => void} owner.onStarting a source is being opened in place of the present one
   * @param {() => void} owner.onStarted the source plays
   * @param {() => void} owner.onStopped no source plays any more
   * @param {(message: import('./error-messages.js').ErrorMessage) => void} owner.onError the source cannot be played;
   *   called after `onStopped`
   * @param {(paused: boolean) => void} owner.onPaused
   * @param {import('./frame-loop.js').FrameHandler} owner.onFrame the source has a new frame
   * @param {(changes: object) => void} owner.saveSettings
   * @param {import('./controls.js').Controls} controls
   */
  constructor(video, settings, owner, controls) {
    this._video = video;
    this._settings = settings;
    this._owner = owner;
    this._controls = controls;
    this._frameLoop = new FrameLoop(video, owner.onFrame);
    this._source = new VideoSource(video, {
      onCameraLost: () => this._fail(cameraError('lost')),
      onCameraMuted: (muted) => this._setPaused({ cameraMuted: muted }),
    });
    /** Changes with each start, so that a source that opens too late is ignored. */
    this._attempt = 0;
    this._userPaused = false;
    this._cameraMuted = false;
    this._paused = false;
    document.addEventListener('visibilitychange', () => this._setPaused({}));
    navigator.mediaDevices?.addEventListener?.('devicechange', () => this._showCameras());
  }

  /** Whether the stream is paused: by the user, because a hidden tab shall pause, or because the camera is muted. */
  get paused() {
    return this._paused;
  }

  /** The source that plays. @returns {null | 'camera' | 'file' | 'sample'} */
  get kind() {
    return this._source.kind;
  }

  /** What settings of one source are stored under: the camera, or the kind of the source. Empty: no source plays. */
  get sourceKey() {
    return this._source.cameraId || (this.kind ?? '');
  }

  /** Whether a camera plays that faces the user. */
  get isUserFacing() {
    return this._source.isUserFacing;
  }

  /** The source as a stream for WebRTC; null without a source, or if the browser cannot capture it. */
  get mediaStream() {
    return this._source.mediaStream;
  }

  /**
   * Start a source in place of the present one.
   * @param {'camera' | 'file' | 'sample'} kind
   * @param {{file?: File, cameraId?: string, facing?: 'user' | 'environment'}} options
   */
  async play(kind, options = {}) {
    const attempt = ++this._attempt;
    const startHadFocus = hasFocus('#start');
    this._owner.onStarting();
    showSpinner(kind === 'camera' ? 'Opening the camera. Allow access if the browser asks.' : 'Opening the video …');
    this._setPhase('running');
    this._userPaused = this._cameraMuted = false;
    try {
      if (kind === 'camera') await this._openCamera(options);
      else if (kind === 'file') await this._source.openFile(options.file);
      else await this._source.openSample();
    } catch (error) {
      if (attempt !== this._attempt) return;
      this._fail(kind === 'camera' ? cameraError(error.name) : fileError(options.file?.name ?? 'the sample'));
      return;
    }
    if (attempt !== this._attempt) return;
    hideSpinner();
    this._frameLoop.start();
    this._owner.onStarted();
    this._setPaused({});
    this._showCameras();
    // The pressed button is no longer shown: users of a keyboard go on at the toolbar.
    if (startHadFocus) document.getElementById('pause').focus({ preventScroll: true });
  }

  stop() {
    const toolbarHadFocus = hasFocus('.toolbar');
    this._attempt += 1;
    this._frameLoop.stop();
    this._source.close();
    hideSpinner();
    this._setPhase('idle');
    this._showCameras();
    this._owner.onStopped();
    if (toolbarHadFocus) document.querySelector('#start button').focus({ preventScroll: true });
  }

  /** Whether the tab is hidden and shall not go on in the background. */
  get isHidden() {
    return document.hidden && !this._settings.background;
  }

  /** Pause or resume at the user's request. */
  togglePause() {
    this._setPaused({ userPaused: !this._userPaused });
  }

  /** Switch between the front and the rear camera, or to the next one if the browser does not know the directions. */
  async switchCamera() {
    const cameras = await listCameras();
    const { facingMode } = this._video.srcObject?.getVideoTracks()[0]?.getSettings() ?? {};
    if (facingMode) return this.play('camera', { facing: facingMode === 'user' ? 'environment' : 'user' });
    const index = cameras.findIndex(({ id }) => id === this._source.cameraId);
    return this.play('camera', { cameraId: cameras[(index + 1) % cameras.length]?.id });
  }

  async _openCamera({ cameraId, facing }) {
    if (cameraId) this._owner.saveSettings({ cameraId });
    if (facing) this._owner.saveSettings({ cameraId: '', facing });
    await this._source.openCamera({ deviceId: this._settings.cameraId, facing: this._settings.facing });
  }

  _fail(message) {
    this.stop();
    this._owner.onError(message);
  }

  async _showCameras() {
    this._controls.showCameras(await listCameras(), this._source.cameraId);
  }

  /** @param {{userPaused?: boolean, cameraMuted?: boolean}} changes */
  _setPaused({ userPaused = this._userPaused, cameraMuted = this._cameraMuted }) {
    this._userPaused = userPaused;
    this._cameraMuted = cameraMuted;
    this._paused = userPaused || cameraMuted || this.isHidden;
    this._owner.onPaused(this._paused);
    if (this.kind) {
      if (userPaused) this._video.pause();
      else if (this._video.paused) this._video.play().catch(() => {});
    }
    this._controls.showPlayback({ kind: this.kind, name: this._source.name, paused: userPaused });
  }

  /** @param {'idle' | 'running'} phase while idle, the start view replaces the video */
  _setPhase(phase) {
    document.getElementById('stage').dataset.phase = phase;
    document.getElementById('start').hidden = phase !== 'idle';
    this._controls.showPlayback({ kind: phase === 'idle' ? null : this.kind, name: this._source.name, paused: false });
  }
}

function hasFocus(selector) {
  return document.querySelector(selector).contains(document.activeElement);
}

function showSpinner(text) {
  document.getElementById('spinner').hidden = false;
  document.getElementById('spinner-text').textContent = text;
}

function hideSpinner() {
  document.getElementById('spinner').hidden = true;
}
