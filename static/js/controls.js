// Connects the buttons and settings of the page with the app, and shows their state.

import { enteredMaxDetections, MODEL_DEFAULTS } from './detection-parameters.js';
import { modelHint, modelTexts } from './view-choice.js';

export class Controls {
  /**
   * @param {object} actions what the user can do
   * @param {(kind: 'camera' | 'file' | 'sample', options?: object) => void} actions.play
   * @param {() => void} actions.stop
   * @param {() => void} actions.togglePause
   * @param {(changes: object) => void} actions.changeSettings
   * @param {(mirrored: boolean) => void} actions.setMirrored
   * @param {() => void} actions.switchCamera
   * @param {() => void} actions.saveSnapshot
   * @param {(key: string) => void} actions.setKey
   */
  constructor(actions) {
    this._actions = actions;
    for (const button of document.querySelectorAll('[data-source]')) {
      button.addEventListener('click', () => this.chooseSource(button.dataset.source));
    }
    this._bindToolbar();
    this._bindSettings();
  }

  /**
   * Start a source. For files, open the file dialog; file-intake.js takes what is chosen.
   * @param {'camera' | 'file' | 'photos' | 'sample'} kind
   */
  chooseSource(kind) {
    if (kind === 'file') element('file').click();
    else if (kind === 'photos') element('photo-files').click();
    else this._actions.play(kind);
  }

  /**
   * @param {object} settings
   * @param {ReturnType<import('./detection-parameters.js').effectiveParameters>} effective parameters in effect
   * @param {boolean} mirrored whether the video is mirrored now
   * @param {'live' | 'synced'} view the view in effect
   */
  showSettings(settings, effective, mirrored, view) {
    this.showView(settings.view, view);
    selectRadio('version', settings.version);
    selectRadio('transport', settings.transport);
    showShare('threshold', effective.threshold);
    showShare('iou-threshold', effective.iouThreshold);
    element('agnostic-nms').checked = effective.agnosticNms === true;
    // A number that is being entered stays as it is.
    if (document.activeElement !== element('max-detections')) showNumber('max-detections', effective.maxDetections);
    element('model-defaults').hidden = Object.keys(MODEL_DEFAULTS).every((name) => settings[name] === null);
    element('track').checked = settings.track;
    for (const name of ['background', 'sound']) element(name).checked = settings[name];
    element('fit').setAttribute('aria-pressed', String(settings.fit === 'cover'));
    element('mirror').setAttribute('aria-pressed', String(mirrored));
  }

  /**
   * @param {'auto' | 'live' | 'synced'} setting
   * @param {'live' | 'synced'} view the view in effect
   */
  showView(setting, view) {
    selectRadio('view', setting);
    for (const radio of document.querySelectorAll('[name=view]')) {
      // The keyboard shortcut selects the view that is not in effect.
      radio.toggleAttribute('data-other', radio.value !== 'auto' && radio.value !== view);
      radio.toggleAttribute('data-effective', setting === 'auto' && radio.value === view);
    }
  }

  /** Mark the button of the present source. @param {string | null} kind */
  showSource(kind) {
    for (const button of document.querySelectorAll('.source-buttons [data-source]')) {
      button.setAttribute('aria-pressed', String(button.dataset.source === kind));
    }
  }

  /** Show which source plays. @param {{kind: string | null, name: string, paused: boolean}} playback */
  showPlayback({ kind, name, paused }) {
    element('player-name').textContent = name;
    document.querySelector('.toolbar').hidden = kind === null;
    element('paused-label').hidden = !paused || kind === null;
    const label = paused ? 'Resume' : 'Pause';
    element('pause').setAttribute('aria-label', label);
    element('pause').title = `${label} (Space)`;
    element('pause').querySelector('use').setAttribute('href', paused ? '#i-play' : '#i-pause');
    this.showSource(kind);
  }

  /**
   * Show the choice of cameras, if one is open and there are others.
   * @param {{id: string, name: string}[]} cameras
   * @param {string} currentId id of the open camera; empty: none
   */
  showCameras(cameras, currentId) {
    const select = element('camera-select');
    select.replaceChildren(...cameras.map(({ id, name }) => new Option(name, id, false, id === currentId)));
    element('camera-field').hidden = !currentId || cameras.length < 2;
    element('switch-camera').hidden = !currentId || cameras.length < 2;
  }

  /**
   * Show the model, and disable versions that the server does not have.
   * @param {Record<string, {name: string, classes: number}>} models by version
   * @param {string} version the selected version
   * @param {Map<string, number>} timesMs measured time of a frame in ms, by version
   */
  showModels(models, version, timesMs) {
    const texts = modelTexts(models, timesMs);
    for (const radio of document.querySelectorAll('[name=version]')) {
      const isAvailable = radio.value in models;
      radio.disabled = !isAvailable;
      // Before anything is known of the server, both versions are shown.
      radio.parentElement.hidden = !isAvailable && Object.keys(models).length > 0;
      const { name = radio.value, time = '' } = texts[radio.value] ?? {};
      const [nameElement, timeElement] = radio.nextElementSibling.children;
      if (nameElement.textContent !== name) nameElement.textContent = name;
      if (timeElement.textContent !== time) timeElement.textContent = time;
      radio.parentElement.title = isAvailable ? models[radio.value].name : `This server has no ${radio.value} model`;
    }
    const model = models[version];
    element('model-hint').textContent = model ? modelHint(model) : '';
  }

  /** Show why WebSocket is used although WebRTC is selected. @param {string} reason empty: hide the message */
  showFallback(reason) {
    const hint = element('transport-hint');
    const text = reason && `Using WebSocket instead of WebRTC: ${reason.replace(/\.$/, '')}.`;
    if (hint.textContent !== text) hint.textContent = text;
    hint.hidden = !reason;
  }

  /** Offer the sample as a source. */
  showSample() {
    for (const button of document.querySelectorAll('[data-source=sample]')) button.hidden = false;
  }

  /** Open the field for the API key and focus it. */
  focusKey() {
    element('access').open = true;
    element('key').focus();
  }

  _bindToolbar() {
    const { togglePause, stop, setMirrored, switchCamera, saveSnapshot, changeSettings } = this._actions;
    element('pause').addEventListener('click', togglePause);
    element('stop').addEventListener('click', stop);
    element('switch-camera').addEventListener('click', switchCamera);
    element('snapshot').addEventListener('click', saveSnapshot);
    element('mirror').addEventListener('click', () => setMirrored(!isPressed('mirror')));
    element('fit').addEventListener('click', () => changeSettings({ fit: isPressed('fit') ? 'contain' : 'cover' }));
    element('fullscreen').addEventListener('click', toggleFullscreen);
    // On an iPhone only video elements can be shown full screen.
    element('fullscreen').hidden = !document.fullscreenEnabled;
  }

  _bindSettings() {
    const { changeSettings, play, setKey } = this._actions;
    for (const name of ['view', 'version', 'transport']) {
      element(name).addEventListener('change', (event) => changeSettings({ [name]: event.target.value }));
    }
    for (const [id, name] of [['threshold', 'threshold'], ['iou-threshold', 'iouThreshold']]) {
      element(id).addEventListener('input', (event) => changeSettings({ [name]: Number(event.target.value) }));
    }
    element('agnostic-nms').addEventListener('change', (event) => changeSettings({ agnosticNms: event.target.checked }));
    element('max-detections').addEventListener('change', (event) => {
      const maxDetections = enteredMaxDetections(event.target.value);
      changeSettings({ maxDetections });
      if (maxDetections !== null) showNumber('max-detections', maxDetections);
    });
    element('model-defaults').addEventListener('click', () => {
      changeSettings(MODEL_DEFAULTS);
      // The button is hidden now.
      element('threshold').focus();
    });
    for (const name of ['track', 'background', 'sound']) {
      element(name).addEventListener('change', (event) => changeSettings({ [name]: event.target.checked }));
    }
    element('camera-select').addEventListener('change', (event) => play('camera', { cameraId: event.target.value }));
    element('key-form').addEventListener('submit', (event) => {
      event.preventDefault();
      setKey(element('key').value.trim());
    });
  }
}

function element(id) {
  return document.getElementById(id);
}

function isPressed(id) {
  return element(id).getAttribute('aria-pressed') === 'true';
}

/** Show a value of 0 to 1 on a slider. @param {string} id @param {number | null} value null: not known yet */
function showShare(id, value) {
  if (value !== null) element(id).value = value;
  element(`${id}-value`).textContent = value === null ? 'default' : `${Math.round(value * 100)}%`;
}

function showNumber(id, value) {
  element(id).value = value === null ? '' : String(value);
}

function selectRadio(name, value) {
  for (const radio of document.querySelectorAll(`[name=${name}]`)) radio.checked = radio.value === value;
}

function toggleFullscreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  // With several streams, all of them.
  else element(element('streams').dataset.columns === '1' ? 'player' : 'streams').requestFullscreen().catch(() => {});
}
