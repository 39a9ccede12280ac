// Converts RTP timestamps of sent video to capture times on the page's clock. Pure.

const WRAP = 2 ** 32;
const TICKS_PER_MS = 90;
/** Number of encoded frames over which the minimum is taken: some seconds of video. */
const MAX_OFFSETS = 90;

/**
 * RTP timestamps are capture times on a clock with an unknown origin. The delay between capture and the encoder's
 * output varies, so the smallest recent difference between the two clocks is the best estimate of the origin.
 */
export class RtpClock {
  constructor() {
    this._firstRtp = null;
    this._offsetsMs = [];
  }

  /**
   * Record a frame that the encoder has just produced.
   * @param {number} rtp RTP timestamp, 32 bits
   * @param {number} nowMs time on the page's clock
   */
  addEncodedFrame(rtp, nowMs) {
    this._firstRtp ??= rtp;
    this._offsetsMs.push(nowMs - this._sinceFirstMs(rtp));
    if (this._offsetsMs.length > MAX_OFFSETS) this._offsetsMs.shift();
  }

  /**
   * @param {number} rtp RTP timestamp, 32 bits
   * @returns {number | null} capture time on the page's clock; null before the first encoded frame
   */
  toMs(rtp) {
    if (this._firstRtp === null) return null;
    return Math.min(...this._offsetsMs) + this._sinceFirstMs(rtp);
  }

  _sinceFirstMs(rtp) {
    const ticks = (((rtp - this._firstRtp) % WRAP) + WRAP) % WRAP;
    return (ticks < WRAP / 2 ? ticks : ticks - WRAP) / TICKS_PER_MS;
  }
}
