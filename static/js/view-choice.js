// Chooses between the two views of a stream: exact boxes or the lowest latency. Pure.

import { milliseconds } from './statistics.js';

/**
 * With exact boxes (`synced`), the whole video is as late as its boxes. Up to the first delay nobody minds that. The
 * second one is higher, so that a delay in between does not make the view change again and again.
 */
const EXACT_UP_TO_MS = 200;
const EXACT_AGAIN_FROM_MS = 300;
/** Results in a row that belong to no frame that the page remembers. With exact boxes they could not be shown. */
const MAX_UNMATCHED = 15;

/** Number of delays by whose median the view is chosen. */
export const VIEW_DELAYS = 20;

export class ViewChoice {
  constructor() {
    /** @type {'live' | 'synced'} */
    this._ofCamera = 'live';
  }

  /** Forget what was measured, because another source starts. */
  restart() {
    this._ofCamera = 'live';
  }

  /**
   * @param {'auto' | 'live' | 'synced'} setting what the user has chosen
   * @param {string | null} kind kind of the source; null: none
   * @param {{delayMs: number | null, unmatched: number}} measured `delayMs`: from capture to painted boxes; null: not
   *   measured yet; `unmatched`: results since the last one whose frame was known
   * @returns {'live' | 'synced'}
   */
  choose(setting, kind, { delayMs, unmatched }) {
    if (setting !== 'auto') return setting;
    if (unmatched >= MAX_UNMATCHED) return 'live';
    if (kind === 'file' || kind === 'sample') return 'synced';
    const limitMs = this._ofCamera === 'synced' ? EXACT_AGAIN_FROM_MS : EXACT_UP_TO_MS;
    this._ofCamera = delayMs !== null && delayMs <= limitMs ? 'synced' : 'live';
    return this._ofCamera;
  }
}

/**
 * Name the models so that people can choose between them: by name, and by the time that one frame takes.
 * @param {Record<string, {name: string}>} models by version
 * @param {Map<string, number>} timesMs measured time of a frame in ms, by version
 * @returns {Record<string, {name: string, time: string}>} by version; models of the same name have their version added
 */
export function modelTexts(models, timesMs) {
  const entries = Object.entries(models);
  return Object.fromEntries(
    entries.map(([version, { name }]) => {
      const isUnique = entries.filter(([, other]) => other.name === name).length === 1;
      const timeMs = timesMs.get(version);
      const time = timeMs === undefined ? '' : `${milliseconds(timeMs)} ms`;
      return [version, { name: isUnique ? name : `${name} (${version})`, time }];
    }),
  );
}

/**
 * Say what a model knows, and what it scored when it was last judged.
 * @param {{name: string, classes: number, lineage?: {scores: Record<string, {map50?: number}>}}} model
 * @returns {string}
 */
export function modelHint({ name, classes, lineage }) {
  const { promotion, test, val } = lineage?.scores ?? {};
  const map50 = (promotion ?? test ?? val)?.map50;
  const parts = [name, `${classes} ${classes === 1 ? 'class' : 'classes'}`];
  if (map50 !== undefined) parts.push(`mAP50 ${map50.toFixed(2)}`);
  return parts.join(' · ');
}
