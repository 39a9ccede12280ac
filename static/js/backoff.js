// How long to wait before the next connection attempt: full jitter between 0.5 s and 30 s; pure.

const FIRST_MS = 500;
const LONGEST_MS = 30000;

export class Backoff {
  /** @param {() => number} random returns 0..1 */
  constructor(random = Math.random) {
    this._random = random;
    this.attempts = 0;
  }

  /** Return the next delay in milliseconds; its upper bound doubles with each attempt. */
  next() {
    const ceiling = Math.min(LONGEST_MS, FIRST_MS * 2 ** (this.attempts + 1));
    this.attempts += 1;
    return Math.max(FIRST_MS, this._random() * ceiling);
  }

  /** The connection worked: begin anew. */
  reset() {
    this.attempts = 0;
  }
}
