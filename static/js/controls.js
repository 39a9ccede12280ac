// The page's buttons, switches and keys: reads them, shows their state, and tells the app what is wanted.

const TYPING = 'input:not([type=checkbox]):not([type=radio]), select, textarea, button, summary, a';

export class Controls {
  /**
   * @param {object} wants what the person asks for
   * @param {(kind: string, options?: object) => void} wants.play
   * @param {() => void} wants.stop
   * @param {() => void} wants.togglePause
   * @param {(change: object) => void} wants.change settings that changed
   * @param {() => void} wants.flipCamera
   * @param {() => void} wants.snapshot
   * @param {(key: string) => void} wants.useKey
   */
  constructor(wants) {
    this._wants = wants;
    this._file = element('file');
    for (const button of document.querySelectorAll('[data-source]')) {
      button.addEventListener('click', () => this.choose(button.dataset.source));
    }
    this._file.addEventListener('change', () => {
      const [file] = this._file.files;
      if (file) wants.play('file', { file });
      this._file.value = ''; // the same file may be chosen again
    });
    this._bindTools();
    this._bindSettings();
    this._bindKeys();
    this._bindDrop();
  }

  /** Start a source as its button would; a file is asked for first. */
  choose(kind) {
    if (kind === 'file') this._file.click();
    else this._wants.play(kind);
  }

  /** Show all settings; `threshold` is the one in effect, 0 to 1; null while nobody knows it. */
  showSettings(settings, threshold, mirrored) {
    check('view', settings.view);
    check('version', settings.version);
    check('transport', settings.transport);
    if (threshold !== null) element('threshold').value = threshold;
    element('threshold-value').textContent = threshold === null ? '' : `${Math.round(threshold * 100)}%`;
    element('track').checked = settings.track;
    element('fit').setAttribute('aria-pressed', String(settings.fit === 'cover'));
    element('mirror').setAttribute('aria-pressed', String(mirrored));
  }

  /** Show what plays. @param {{kind: string | null, paused: boolean}} playing */
  showPlaying({ kind, paused }) {
    document.querySelector('.toolbar').hidden = kind === null;
    element('paused-mark').hidden = !paused || kind === null;
    const label = paused ? 'Go on' : 'Pause';
    element('pause').setAttribute('aria-label', label);
    element('pause').title = `${label} (Space)`;
    element('pause').querySelector('use').setAttribute('href', paused ? '#i-play' : '#i-pause');
    for (const button of document.querySelectorAll('.source-buttons [data-source]')) {
      button.setAttribute('aria-pressed', String(button.dataset.source === kind));
    }
  }

  /** @param {{id: string, name: string}[]} cameras @param {string} current id, empty when none is open */
  showCameras(cameras, current) {
    const select = element('camera-select');
    select.replaceChildren(...cameras.map(({ id, name }) => new Option(name, id, false, id === current)));
    element('camera-field').hidden = !current || cameras.length < 2;
    element('flip').hidden = !current || cameras.length < 2;
  }

  /** Offer only versions the server has. @param {Record<string, {name: string, classes: number}>} models */
  showModels(models, version) {
    for (const radio of document.querySelectorAll('[name=version]')) {
      const known = radio.value in models;
      radio.disabled = !known;
      radio.parentElement.title = known ? models[radio.value].name : `This server has no ${radio.value} model`;
    }
    const model = models[version];
    element('model-hint').textContent = model
      ? `${model.name} · ${model.classes} ${model.classes === 1 ? 'class' : 'classes'}`
      : '';
  }

  /** Say why frames do not go the way that was chosen; nothing when they do. @param {string} reason */
  showFallback(reason) {
    const hint = element('transport-hint');
    const text = reason && `Frames go over WebSocket instead of WebRTC: ${reason.replace(/\.$/, '')}.`;
    if (hint.textContent !== text) hint.textContent = text;
    hint.hidden = !reason;
  }

  showSample() {
    for (const button of document.querySelectorAll('[data-source=sample]')) button.hidden = false;
  }

  askForKey() {
    element('access').open = true;
    element('key').focus();
  }

  _bindTools() {
    const { togglePause, stop, flipCamera, snapshot, change } = this._wants;
    element('pause').addEventListener('click', togglePause);
    element('stop').addEventListener('click', stop);
    element('flip').addEventListener('click', flipCamera);
    element('snapshot').addEventListener('click', snapshot);
    element('mirror').addEventListener('click', () => change({ mirror: !pressed('mirror') }));
    element('fit').addEventListener('click', () => change({ fit: pressed('fit') ? 'contain' : 'cover' }));
    element('full').addEventListener('click', toggleFullscreen);
    // Phones of one maker let only videos fill the screen, not pages.
    element('full').hidden = !document.fullscreenEnabled;
  }

  _bindSettings() {
    const { change, play, useKey } = this._wants;
    for (const name of ['view', 'version', 'transport']) {
      element(name).addEventListener('change', (event) => change({ [name]: event.target.value }));
    }
    element('threshold').addEventListener('input', (event) => change({ threshold: Number(event.target.value) }));
    element('track').addEventListener('change', (event) => change({ track: event.target.checked }));
    element('camera-select').addEventListener('change', (event) => play('camera', { cameraId: event.target.value }));
    element('key-form').addEventListener('submit', (event) => {
      event.preventDefault();
      useKey(element('key').value.trim());
    });
  }

  _bindKeys() {
    const keys = {
      ' ': () => this._wants.togglePause(),
      s: () => this._wants.change({ view: checked('view') === 'live' ? 'synced' : 'live' }),
      m: () => element('mirror').click(),
      f: () => element('full').hidden || toggleFullscreen(),
    };
    document.addEventListener('keydown', (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.(TYPING)) return;
      if (document.querySelector('.toolbar').hidden || !(event.key.toLowerCase() in keys)) return;
      event.preventDefault();
      keys[event.key.toLowerCase()]();
    });
  }

  _bindDrop() {
    const stage = element('stage');
    const hint = element('drop-hint');
    // A file dropped beside the stage must not replace the page.
    for (const name of ['dragover', 'drop']) window.addEventListener(name, (event) => event.preventDefault());
    stage.addEventListener('dragenter', () => (hint.hidden = false));
    stage.addEventListener('dragleave', (event) => {
      if (!stage.contains(event.relatedTarget)) hint.hidden = true;
    });
    stage.addEventListener('drop', (event) => {
      hint.hidden = true;
      const [file] = event.dataTransfer.files;
      if (file) this._wants.play('file', { file });
    });
  }
}

function element(id) {
  return document.getElementById(id);
}

function pressed(id) {
  return element(id).getAttribute('aria-pressed') === 'true';
}

function checked(name) {
  return document.querySelector(`[name=${name}]:checked`)?.value;
}

function check(name, value) {
  for (const radio of document.querySelectorAll(`[name=${name}]`)) radio.checked = radio.value === value;
}

function toggleFullscreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else element('player').requestFullscreen().catch(() => {});
}
