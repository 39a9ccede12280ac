// Rates, quantiles and counts over the last seconds; pure, shown by the statistics panel.

/** Events per second over a sliding window. */
export class RateMeter {
  /** @param {number} windowMs */
  constructor(windowMs = 3000) {
    this._windowMs = windowMs;
    this._times = [];
    this._since = null;
  }

  tick(nowMs) {
    this._since ??= nowMs;
    this._times.push(nowMs);
    this._trim(nowMs);
  }

  perSecond(nowMs) {
    this._trim(nowMs);
    if (this._since === null) return 0;
    // In the first seconds the window is shorter, or the rate would seem to climb.
    const spanMs = Math.min(this._windowMs, Math.max(1000, nowMs - this._since));
    return (this._times.length * 1000) / spanMs;
  }

  reset() {
    this._times = [];
    this._since = null;
  }

  _trim(nowMs) {
    while (this._times.length && nowMs - this._times[0] > this._windowMs) this._times.shift();
  }
}

/** The last values of a quantity. */
export class Samples {
  /** @param {number} size how many are kept */
  constructor(size = 120) {
    this._size = size;
    this.values = [];
  }

  add(value) {
    this.values.push(value);
    if (this.values.length > this._size) this.values.shift();
  }

  /**
   * @param {number} q 0..1
   * @param {number} last how many of the newest values count
   * @returns {number | null} null when there are none
   */
  quantile(q, last = this._size) {
    const sorted = this.values.slice(-last).sort((a, b) => a - b);
    if (!sorted.length) return null;
    return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))];
  }

  clear() {
    this.values = [];
  }
}

/** Counts by reason. */
export class Tally {
  constructor() {
    this._counts = new Map();
  }

  add(reason, count = 1) {
    this._counts.set(reason, (this._counts.get(reason) ?? 0) + count);
  }

  get total() {
    let total = 0;
    for (const count of this._counts.values()) total += count;
    return total;
  }

  count(reason) {
    return this._counts.get(reason) ?? 0;
  }

  /** Reasons and counts, most frequent first. */
  get entries() {
    return [...this._counts].sort((a, b) => b[1] - a[1]);
  }

  clear() {
    this._counts.clear();
  }
}
