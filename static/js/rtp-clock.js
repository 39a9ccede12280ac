// Tells when a frame was captured from its RTP timestamp, by the encoder's own frames; pure.

const WRAP = 2 ** 32;
const TICKS_PER_MS = 90;
/** Encoded frames whose delay is remembered: some seconds of video. */
const REMEMBERED = 90;

/**
 * RTP timestamps are capture times on a clock with an unknown beginning. An encoded frame comes out a few
 * milliseconds after its capture at best, and the smallest difference seen tells that beginning.
 */
export class RtpClock {
  constructor() {
    this._first = null;
    this._offsets = [];
  }

  /** An encoded frame has left the encoder. @param {number} rtp 32 bits @param {number} nowMs page's clock */
  encoded(rtp, nowMs) {
    this._first ??= rtp;
    this._offsets.push(nowMs - this._sinceFirst(rtp));
    if (this._offsets.length > REMEMBERED) this._offsets.shift();
  }

  /** @param {number} rtp @returns {number | null} capture time on the page's clock; null before any frame */
  toMs(rtp) {
    if (this._first === null) return null;
    return Math.min(...this._offsets) + this._sinceFirst(rtp);
  }

  _sinceFirst(rtp) {
    const ticks = (((rtp - this._first) % WRAP) + WRAP) % WRAP;
    return (ticks < WRAP / 2 ? ticks : ticks - WRAP) / TICKS_PER_MS;
  }
}
