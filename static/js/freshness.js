// Decides whether the results that are shown are current. Pure.

import { RecentValues } from './statistics.js';

/** Results are no longer current after this time without a new one. */
const STALE_AFTER_MS = 1000;
/** The first result may take longer: a session has to be opened. */
const FIRST_AFTER_MS = 3000;
/** Where results are usually far apart, they stay current for this many of the usual intervals, up to the limit. */
const INTERVALS = 2.5;
const MAX_STALE_AFTER_MS = 5000;

/**
 * @typedef {'idle' | 'waiting' | 'current' | 'stale' | 'paused'} ResultState `idle`: no source plays; `waiting`: the
 *   first result is still to come; `stale`: results have stopped
 */

/** @param {number} ageMs time since the newest result */
export function staleText(ageMs) {
  return `No results for ${Math.floor(ageMs / 1000)} s`;
}

export class Freshness {
  constructor() {
    /** Intervals between results, in milliseconds. */
    this._intervalsMs = new RecentValues(15);
    /** Time of the newest result; null: none since the source started. */
    this._resultMs = null;
    /** Start of the present wait: the newest result, the start of the source, or the end of a pause. */
    this._sinceMs = 0;
    /** @type {ResultState} */
    this.state = 'idle';
  }

  /** Begin anew, because another source starts. */
  restart(nowMs) {
    this._intervalsMs = new RecentValues(15);
    this._resultMs = null;
    this._sinceMs = nowMs;
  }

  /** Record that a result is shown. */
  addResult(nowMs) {
    if (this._resultMs !== null && this.state === 'current') this._intervalsMs.add(nowMs - this._resultMs);
    this._resultMs = this._sinceMs = nowMs;
  }

  /** Milliseconds since the newest result, or since the start if there was none. */
  ageMs(nowMs) {
    return nowMs - (this._resultMs ?? this._sinceMs);
  }

  /**
   * @param {{playing: boolean, paused: boolean}} source
   * @param {number} nowMs
   * @returns {ResultState} also kept as `state`
   */
  update({ playing, paused }, nowMs) {
    const before = this.state;
    if (!playing) this.state = 'idle';
    else if (paused) this.state = 'paused';
    else {
      // The time of a pause does not count: the next result is expected only from now on.
      if (before === 'paused') this._sinceMs = nowMs;
      const isLate = nowMs - this._sinceMs > this._limitMs;
      if (isLate) this.state = 'stale';
      else this.state = this._resultMs === null ? 'waiting' : 'current';
    }
    return this.state;
  }

  get _limitMs() {
    if (this._resultMs === null) return FIRST_AFTER_MS;
    const usualMs = this._intervalsMs.quantile(0.5) ?? 0;
    return Math.min(MAX_STALE_AFTER_MS, Math.max(STALE_AFTER_MS, INTERVALS * usualMs));
  }
}
