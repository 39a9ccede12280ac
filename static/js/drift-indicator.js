// Shows whether frames and detections still resemble the reference, and if not, which features have changed.

import { authorizationHeaders } from './authentication.js';

const POLL_MS = 10000;
const TIMEOUT_MS = 4000;
const MAX_FEATURES = 3;
const MAX_GROUPS = 2;

/** Display names of features. Features that are not listed are shown under their own name. */
const FEATURE_NAMES = {
  dark_frac: 'dark areas',
  bright_frac: 'bright areas',
  colorfulness: 'colourfulness',
  log_sharpness: 'sharpness',
  jpeg_bpp: 'compression',
  aspect: 'aspect ratio',
  log_mpix: 'frame size',
  frame_diff: 'motion',
  n_boxes: 'number of boxes',
  n_low: 'low-confidence boxes',
  no_box: 'frames without boxes',
  conf_mean: 'mean confidence',
  conf_max: 'highest confidence',
  conf_min: 'lowest confidence',
  frac_low: 'share of low-confidence boxes',
  area_med: 'box size',
  area_max: 'largest box',
  log_aspect_med: 'box aspect ratio',
  cx_med: 'horizontal box position',
  cy_med: 'vertical box position',
  edge_frac: 'boxes at the edge',
  n_classes: 'number of classes',
  overlap_max: 'box overlap',
  top_class: 'most confident class',
  classes: 'classes',
};

/** State and text by status of the server. A status that is not listed is not shown. */
const STATUS_TEXTS = {
  ok: ['ok', 'No drift'],
  insufficient_data: ['idle', 'Drift: not enough frames yet'],
  stale_reference: ['idle', 'Drift: the reference belongs to another model'],
  error: ['error', 'Drift: the reference cannot be read'],
};

export class DriftIndicator {
  /** @param {() => string} key API key; empty: none. The server reveals stream names only to administrators. */
  constructor(key) {
    this._element = document.getElementById('drift-indicator');
    this._key = key;
    this._timer = null;
  }

  /** Poll the status while the page is visible. */
  async poll() {
    clearTimeout(this._timer);
    if (!document.hidden) this._show(await fetchDriftStatus(this._key()));
    clearTimeout(this._timer);
    this._timer = setTimeout(() => this.poll(), POLL_MS);
  }

  /** @param {object | null} status answer of the server; null: it did not respond */
  _show(status) {
    if (status === null) return;
    const description = describeDrift(status);
    this._element.hidden = description === null;
    if (description === null) return;
    this._element.dataset.state = description.state;
    this._element.lastElementChild.textContent = description.text;
  }
}

/**
 * Describe a drift status for the user.
 * @param {{status: string, groups?: Record<string, {status: string, moved: string[], samples: number}>}} status
 * @returns {{state: 'ok' | 'idle' | 'drift' | 'error', text: string} | null} null if there is nothing to show
 */
export function describeDrift(status) {
  if (status.status !== 'drift') {
    const [state, text] = STATUS_TEXTS[status.status] ?? [null, ''];
    return state === null ? null : { state, text };
  }
  const groups = Object.entries(status.groups ?? {}).filter(([, group]) => group.status === 'drift');
  // Without an administrator's key the server does not list the groups.
  if (groups.length === 0) return { state: 'drift', text: 'Drift detected' };
  const parts = groups.slice(0, MAX_GROUPS).map(([name, group]) => {
    const features = group.moved.slice(0, MAX_FEATURES).map((feature) => FEATURE_NAMES[feature] ?? feature);
    return features.length ? `${name} (${features.join(', ')})` : name;
  });
  if (groups.length > MAX_GROUPS) parts.push(`${groups.length - MAX_GROUPS} more`);
  const samples = groups.reduce((sum, [, group]) => sum + group.samples, 0);
  const saved = samples ? `. ${samples} ${samples === 1 ? 'frame' : 'frames'} saved as training data` : '';
  return { state: 'drift', text: `Drift detected: ${parts.join('; ')}${saved}` };
}

/** @returns {Promise<object | null>} null if the server does not respond; never rejects */
async function fetchDriftStatus(key) {
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(), TIMEOUT_MS);
  try {
    const response = await fetch('drift/status', {
      headers: authorizationHeaders(key),
      cache: 'no-store',
      signal: controller.signal,
    });
    return await response.json();
  } catch {
    return null;
  } finally {
    clearTimeout(timer);
  }
}
