// Tells the user that the server saves frames for training, lets them report a frame, and lets them opt out.

import { fetchHealth } from './health.js';

const POLL_MS = 10000;
const CONFIRMATION_MS = 2500;

export class SamplingPanel {
  /**
   * @param {object} owner
   * @param {() => void} owner.report the user reports the last frame
   * @param {(keep: boolean) => void} owner.setKeep the user allows or forbids the server to save frames
   */
  constructor(owner) {
    this._reportButton = document.getElementById('report');
    this._field = document.getElementById('keep-field');
    this._toggle = document.getElementById('keep');
    this._countHint = document.getElementById('samples-hint');
    this._startHint = document.getElementById('start-hint');
    this._pollTimer = null;
    this._confirmationTimer = null;
    this._samplingOn = false;
    this._keep = true;
    this._reportButton.addEventListener('click', owner.report);
    this._toggle.addEventListener('change', () => owner.setKeep(this._toggle.checked));
  }

  /** Poll the number of saved frames while the page is visible. */
  async poll() {
    clearTimeout(this._pollTimer);
    if (!document.hidden) this._showHealth(await fetchHealth());
    clearTimeout(this._pollTimer);
    this._pollTimer = setTimeout(() => this.poll(), POLL_MS);
  }

  /** @param {boolean} keep whether the user allows the server to save frames */
  showKeep(keep) {
    this._keep = keep;
    this._toggle.checked = keep;
    this._showReportButton();
  }

  /**
   * Show what became of a report.
   * @param {{taken: boolean, reason?: string, retry_ms?: number}} message `reported` message of the server
   */
  handleReported(message) {
    const button = this._reportButton;
    button.dataset.report = message.taken || message.reason === 'duplicate' ? 'accepted' : 'rejected';
    button.title = reportText(message);
    clearTimeout(this._confirmationTimer);
    this._confirmationTimer = setTimeout(() => {
      delete button.dataset.report;
      button.title = button.ariaLabel;
    }, CONFIRMATION_MS);
    this.poll();
  }

  _showHealth({ reachable, sampling, samples }) {
    if (!reachable) return;
    this._samplingOn = sampling === 'on';
    this._field.hidden = this._countHint.hidden = !this._samplingOn;
    this._countHint.textContent = samplesText(samples);
    this._startHint.textContent = privacyText(this._samplingOn);
    this._showReportButton();
  }

  _showReportButton() {
    this._reportButton.hidden = !this._samplingOn || !this._keep;
  }
}

const REFUSALS = {
  duplicate: 'This frame is saved already',
  off: 'This server takes no reports',
  spool_full: 'Not saved: the server has no room for more frames',
  disk_error: 'Not saved: the disk of the server fails',
  no_spool: 'Not saved: the server cannot use its folder',
  damaged: 'Not saved: the server cannot read this frame',
  busy: 'Not saved: too many reports at the moment',
  unavailable: 'The server did not answer; this frame may not be saved',
};

/**
 * @param {{taken: boolean, reason?: string, retry_ms?: number}} message `reported` message of the server
 * @returns {string} what became of the report
 */
export function reportText({ taken, reason, retry_ms: retryMs }) {
  if (taken) return 'Saved for training';
  if (reason !== 'rate') return REFUSALS[reason] ?? 'Not saved';
  const minutes = Math.ceil((retryMs ?? 0) / 60000);
  return minutes ? `Not saved: too many reports; the next one in ${minutes} min` : 'Not saved: too many reports';
}

/** @param {number} count frames saved since the server started @returns {string} */
export function samplesText(count) {
  if (!count) return 'No frames saved yet';
  return `${count} ${count === 1 ? 'frame' : 'frames'} saved since the server started`;
}

/**
 * Return what happens to the user's frames, shown before the camera is opened.
 * @param {boolean} samplingOn whether the server saves frames
 * @returns {string}
 */
export function privacyText(samplingOn) {
  const processing = 'Frames are sent only to this server and analysed in real time.';
  return samplingOn ? `${processing} The server may save single frames for training.` : processing;
}
