// Decides when the next frame may be sent: window, acknowledgement and rate of detect.v1. Pure.

/** How long the window may stay closed before the page sends a ping to ask for its current size. */
export const PING_AFTER_MS = 5000;

export class FlowControl {
  constructor() {
    /** Sequence number of the next frame. It never starts again: the server rejects numbers that do not increase. */
    this.nextSeq = 1;
    /** Every frame up to this sequence number has an outcome. */
    this.ack = 0;
    /** Window: how many frames may be without an outcome. The server grants it; 0: it put the stream on hold. */
    this.win = 0;
    /** Frames per second that the server allows; null: no limit. */
    this.maxFps = null;
    /** Frames per second that the page chose for this network and device; null: no limit. */
    this.targetFps = null;
    /** Why the server put the stream on hold; empty while it is not on hold. */
    this.holdReason = '';
    this._nextSendMs = 0;
    this._closedSinceMs = null;
  }

  /**
   * Start or resume a session. Frames that were in flight are lost, so they count as acknowledged.
   * @param {{win: number, max_fps: number | null}} grant `flow` of the `welcome` message
   * @param {number} nowMs
   */
  open(grant, nowMs) {
    this.ack = this.nextSeq - 1;
    this.win = grant.win;
    this.maxFps = grant.max_fps ?? null;
    this.holdReason = '';
    this._nextSendMs = nowMs;
    this._closedSinceMs = null;
  }

  /**
   * Update the state from any message of the server.
   * @param {{type: string, ack?: number, win?: number, max_fps?: number | null, reason?: string}} message
   */
  handleMessage(message) {
    // After a reconnect the server may acknowledge less than before: `ack` must not decrease.
    if (Number.isInteger(message.ack)) this.ack = Math.min(Math.max(this.ack, message.ack), this.nextSeq - 1);
    if (Number.isInteger(message.win)) this.win = message.win;
    if (message.type === 'flow') {
      this.maxFps = message.max_fps ?? null;
      this.holdReason = this.win === 0 ? (message.reason ?? '') : '';
    }
  }

  get isOnHold() {
    return this.win === 0;
  }

  /** Number of sent frames that have no outcome yet. */
  get inFlight() {
    return this.nextSeq - 1 - this.ack;
  }

  /**
   * Return why no frame may be sent now, or null if one may.
   * @param {number} nowMs
   * @param {number} unsentBytes bytes of earlier frames that the socket has not sent yet
   * @returns {null | 'hold' | 'window' | 'unsent' | 'rate'}
   */
  blockedBy(nowMs, unsentBytes) {
    const closed = this.isOnHold || this.nextSeq - this.ack > this.win;
    this._closedSinceMs = closed ? (this._closedSinceMs ?? nowMs) : null;
    if (this.isOnHold) return 'hold';
    if (closed) return 'window';
    if (unsentBytes > 0) return 'unsent';
    return nowMs < this._nextSendMs ? 'rate' : null;
  }

  /**
   * Record that a frame is sent.
   * @param {number} nowMs
   * @returns {number} its sequence number
   */
  send(nowMs) {
    const fps = Math.min(this.maxFps ?? Infinity, this.targetFps ?? Infinity);
    // A schedule instead of a minimum gap: with a gap, 20 frames per second of a 30 fps camera would become 15.
    this._nextSendMs = Number.isFinite(fps) ? Math.max(this._nextSendMs + 1000 / fps, nowMs) : nowMs;
    return this.nextSeq++;
  }

  /**
   * Return whether a ping is due because the window stayed closed. Returns true once per PING_AFTER_MS.
   * @param {number} nowMs
   */
  takePingDue(nowMs) {
    if (this._closedSinceMs === null || nowMs - this._closedSinceMs < PING_AFTER_MS) return false;
    this._closedSinceMs = nowMs;
    return true;
  }
}
