// Samples: says that the server keeps single frames, lets a person refuse it or report one, and counts them.

import { fetchHealth } from './health.js';

const ASK_EVERY_MS = 10000;
const TOLD_FOR_MS = 2500;

export class SamplingPanel {
  /**
   * @param {object} elements
   * @param {HTMLElement} elements.button reports the last picture
   * @param {HTMLElement} elements.field switch "may keep frames"
   * @param {HTMLInputElement} elements.toggle the switch itself
   * @param {HTMLElement} elements.hint how many there are
   * @param {HTMLElement} elements.start what is said before anything plays
   * @param {object} wants what the person asks for
   * @param {() => void} wants.report
   * @param {(keep: boolean) => void} wants.keep
   */
  constructor(elements, wants) {
    this._elements = elements;
    this._timer = null;
    this._told = null;
    elements.button.addEventListener('click', wants.report);
    elements.toggle.addEventListener('change', () => wants.keep(elements.toggle.checked));
  }

  /** Ask the server now, and again while the page is visible. */
  async watch() {
    clearTimeout(this._timer);
    if (!document.hidden) this.show(await fetchHealth());
    clearTimeout(this._timer);
    this._timer = setTimeout(() => this.watch(), ASK_EVERY_MS);
  }

  /** @param {import('./health.js').HealthReport} health */
  show({ reachable, sampling, samples }) {
    if (!reachable) return;
    const { field, hint, start } = this._elements;
    this._on = sampling === 'on';
    field.hidden = !this._on;
    hint.hidden = !this._on;
    hint.textContent = samplesText(samples);
    start.textContent = startText(this._on);
    this._showButton();
  }

  /** @param {boolean} keep what the switch says */
  showKeep(keep) {
    this._keep = keep;
    this._elements.toggle.checked = keep;
    this._showButton();
  }

  /** The server's answer to a report. @param {{taken: boolean}} message */
  reported({ taken }) {
    const { button } = this._elements;
    button.dataset.told = taken ? 'taken' : 'busy';
    button.title = taken ? 'Kept for training' : 'The server has too many at the moment';
    clearTimeout(this._told);
    this._told = setTimeout(() => {
      delete button.dataset.told;
      button.title = button.ariaLabel;
    }, TOLD_FOR_MS);
    this.watch();
  }

  _showButton() {
    this._elements.button.hidden = !this._on || !this._keep;
  }
}

/** @param {number} count of frames taken since the server was started */
export function samplesText(count) {
  if (!count) return 'None kept so far';
  return `${count} ${count === 1 ? 'frame' : 'frames'} kept since the server was started`;
}

/** What happens to pictures, said before the camera is opened. @param {boolean} kept */
export function startText(kept) {
  const where = 'Pictures go to this server only and are analysed live';
  return kept ? `${where}; it may keep single frames for training.` : `${where}.`;
}
