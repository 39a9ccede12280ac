// A small light: do the streams still look like their reference, and if not, what has moved?

import { authorization } from './ticket.js';

const ASK_EVERY_MS = 10000;
const TIMEOUT_MS = 4000;
const MAX_COLUMNS = 3;
const MAX_GROUPS = 2;

/** What people call the columns; the others are called by their names. */
const NAMES = {
  dark_frac: 'dark areas',
  bright_frac: 'bright areas',
  colorfulness: 'colours',
  log_sharpness: 'sharpness',
  jpeg_bpp: 'compression',
  aspect: 'shape',
  log_mpix: 'size',
  frame_diff: 'motion',
  n_boxes: 'number of boxes',
  n_low: 'doubtful boxes',
  no_box: 'empty pictures',
  conf_mean: 'scores',
  conf_max: 'best score',
  conf_min: 'lowest score',
  frac_low: 'share of doubtful boxes',
  area_med: 'size of boxes',
  area_max: 'largest box',
  log_aspect_med: 'shape of boxes',
  cx_med: 'place of boxes',
  cy_med: 'height of boxes',
  edge_frac: 'boxes at the edge',
  n_classes: 'number of classes',
  overlap_max: 'overlap',
  top_class: 'class of the best box',
  classes: 'classes',
};

/** Status of the server to colour and words; those that are missing are not shown. */
const WORDS = {
  ok: ['ok', 'Pictures look as usual'],
  insufficient_data: ['idle', 'Too few pictures yet to compare with what is usual'],
  stale_reference: ['idle', 'The model is newer than what its boxes are compared with'],
  error: ['bad', 'What is usual cannot be read'],
};

export class DriftLight {
  /**
   * @param {HTMLElement} element holds a dot and a text
   * @param {() => string} key API key; names of streams are told to those of administrators alone
   */
  constructor(element, key = () => '') {
    this._element = element;
    this._key = key;
    this._timer = null;
  }

  /** Ask the server now, and again while the page is visible. */
  async watch() {
    clearTimeout(this._timer);
    if (!document.hidden) this.show(await fetchDrift(this._key()));
    clearTimeout(this._timer);
    this._timer = setTimeout(() => this.watch(), ASK_EVERY_MS);
  }

  /** @param {object | null} status of the server; null when it does not answer */
  show(status) {
    if (status === null) return;
    const said = describeDrift(status);
    this._element.hidden = said === null;
    if (said === null) return;
    this._element.dataset.state = said.state;
    this._element.lastElementChild.textContent = said.text;
  }
}

/**
 * @param {{status: string, groups?: Record<string, {status: string, moved: string[], samples: number}>}} status
 * @returns {{state: string, text: string} | null} null where there is nothing to show
 */
export function describeDrift(status) {
  if (status.status !== 'drift') {
    const [state, text] = WORDS[status.status] ?? [null, ''];
    return state === null ? null : { state, text };
  }
  const drifting = Object.entries(status.groups ?? {}).filter(([, group]) => group.status === 'drift');
  const parts = drifting.slice(0, MAX_GROUPS).map(([name, group]) => {
    const moved = group.moved.slice(0, MAX_COLUMNS).map((column) => NAMES[column] ?? column);
    return moved.length ? `${name} (${moved.join(', ')})` : name;
  });
  if (drifting.length > MAX_GROUPS) parts.push(`${drifting.length - MAX_GROUPS} more`);
  // Names of streams are for administrators: everybody else is told that something drifts, not what.
  if (parts.length === 0) return { state: 'drift', text: 'Pictures are unlike what is usual' };
  const samples = drifting.reduce((sum, [, group]) => sum + group.samples, 0);
  const kept = samples ? `; ${samples} ${samples === 1 ? 'frame' : 'frames'} kept because of it` : '';
  return { state: 'drift', text: `Unlike what is usual: ${parts.join('; ')}${kept}` };
}

/** @returns {Promise<object | null>} never rejects */
async function fetchDrift(key) {
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(), TIMEOUT_MS);
  try {
    const response = await fetch('drift/status', {
      headers: authorization(key),
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
