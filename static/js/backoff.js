// Computes the delay before the next connection attempt: exponential back-off with full jitter, 0.5 s to 30 s. Pure.

const MIN_DELAY_MS = 500;
const MAX_DELAY_MS = 30000;

export class Backoff {
  /** @param {() => number} random returns a number from 0 (inclusive) to 1 (exclusive) */
  constructor(random = Math.random) {
    this._random = random;
    this.attempts = 0;
  }

  /** @returns {number} the next delay in milliseconds; its upper bound doubles with each attempt */
  next() {
    const maximum = Math.min(MAX_DELAY_MS, MIN_DELAY_MS * 2 ** (this.attempts + 1));
    this.attempts += 1;
    return Math.max(MIN_DELAY_MS, this._random() * maximum);
  }

  /** Start again from the shortest delay. Call this when a connection was established. */
  reset() {
    this.attempts = 0;
  }
}
