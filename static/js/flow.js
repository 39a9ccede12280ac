// When the next frame may be sent: window, ack and rate of detect.v1; pure, the pipeline asks before it encodes.

/** How long the window may stay shut before the server is asked whether it is still so. */
export const PING_AFTER_MS = 5000;

export class Flow {
  constructor() {
    /** Counts on over reconnects; the server wants it to rise. */
    this.nextSeq = 1;
    this.ack = 0;
    this.win = 0;
    /** Frames per second the server grants; null: no limit. */
    this.maxFps = null;
    /** Frames per second the page itself wants to send; null: no limit. */
    this.ownFps = null;
    /** Why the server holds the stream, when `win` is 0. */
    this.holdReason = '';
    this._due = 0;
    this._shutSince = null;
  }

  /**
   * A session begins or is taken up again: what was in flight is lost and counts as answered.
   * @param {{win: number, max_fps: number | null}} grant `flow` of the welcome
   * @param {number} nowMs
   */
  open(grant, nowMs) {
    this.ack = this.nextSeq - 1;
    this.win = grant.win;
    this.maxFps = grant.max_fps ?? null;
    this.holdReason = '';
    this._due = nowMs;
    this._shutSince = null;
  }

  /**
   * Take over what any message of the server says about the window.
   * @param {{type: string, ack?: number, win?: number, max_fps?: number | null, reason?: string}} message
   */
  heard(message) {
    // After a reconnect the server may know less than the page: an ack never goes back.
    if (Number.isInteger(message.ack)) this.ack = Math.min(Math.max(this.ack, message.ack), this.nextSeq - 1);
    if (Number.isInteger(message.win)) this.win = message.win;
    if (message.type === 'flow') {
      this.maxFps = message.max_fps ?? null;
      this.holdReason = this.win === 0 ? (message.reason ?? '') : '';
    }
  }

  /** Frames sent that have no outcome yet. */
  get inFlight() {
    return this.nextSeq - 1 - this.ack;
  }

  /**
   * Return why a frame may not be sent now, or null when it may.
   * @param {number} nowMs
   * @param {number} unsentBytes what the socket still holds of earlier frames
   * @returns {null | 'hold' | 'window' | 'unsent' | 'rate'}
   */
  refusal(nowMs, unsentBytes) {
    const shut = this.win === 0 || this.nextSeq - this.ack > this.win;
    this._shutSince = shut ? (this._shutSince ?? nowMs) : null;
    if (this.win === 0) return 'hold';
    if (shut) return 'window';
    if (unsentBytes > 0) return 'unsent';
    return nowMs < this._due ? 'rate' : null;
  }

  /**
   * Count one frame as sent.
   * @param {number} nowMs
   * @returns {number} its sequence number
   */
  send(nowMs) {
    const fps = Math.min(this.maxFps ?? Infinity, this.ownFps ?? Infinity);
    // A schedule, not a gap since the last frame: 20 a second stay 20 when the camera gives 30.
    this._due = Number.isFinite(fps) ? Math.max(this._due + 1000 / fps, nowMs) : nowMs;
    return this.nextSeq++;
  }

  /**
   * Whether the window has been shut so long that a ping is due; true once per period.
   * @param {number} nowMs
   */
  takePing(nowMs) {
    if (this._shutSince === null || nowMs - this._shutSince < PING_AFTER_MS) return false;
    this._shutSince = nowMs;
    return true;
  }
}
