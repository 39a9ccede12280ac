// Computes rates, quantiles and counts over recent values. Pure.

/** Events per second in a sliding window. */
export class RateMeter {
  /** @param {number} windowMs */
  constructor(windowMs = 3000) {
    this._windowMs = windowMs;
    this._timesMs = [];
    this._firstMs = null;
  }

  /** Count an event. */
  tick(nowMs) {
    this._firstMs ??= nowMs;
    this._timesMs.push(nowMs);
    this._removeOld(nowMs);
  }

  perSecond(nowMs) {
    this._removeOld(nowMs);
    if (this._firstMs === null) return 0;
    // Divide by the time since the first event while that is shorter: otherwise the rate would appear to rise slowly.
    const spanMs = Math.min(this._windowMs, Math.max(1000, nowMs - this._firstMs));
    return (this._timesMs.length * 1000) / spanMs;
  }

  _removeOld(nowMs) {
    while (this._timesMs.length && nowMs - this._timesMs[0] > this._windowMs) this._timesMs.shift();
  }
}

/** The most recent values of a quantity. */
export class RecentValues {
  /** @param {number} capacity number of values to keep */
  constructor(capacity = 120) {
    this._capacity = capacity;
    /** Newest last. */
    this.values = [];
  }

  add(value) {
    this.values.push(value);
    if (this.values.length > this._capacity) this.values.shift();
  }

  /**
   * @param {number} q 0 to 1
   * @param {number} newest use only this many of the newest values
   * @returns {number | null} null without values
   */
  quantile(q, newest = this._capacity) {
    const sorted = this.values.slice(-newest).sort((a, b) => a - b);
    if (!sorted.length) return null;
    return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))];
  }
}

/** Number of events by reason. */
export class ReasonCounter {
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

  /** Pairs of reason and count, most frequent first. */
  get entries() {
    return [...this._counts].sort((a, b) => b[1] - a[1]);
  }
}

/** Write a time in milliseconds, without the unit. @param {number | null} value null: not known */
export function milliseconds(value) {
  if (value === null) return '–';
  return value < 10 ? value.toFixed(1) : String(Math.round(value));
}
