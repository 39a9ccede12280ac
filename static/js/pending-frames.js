// Remembers sent frames until their result arrives: by sequence number (WebSocket) or capture time (WebRTC). Pure.

/**
 * @typedef {object} PendingFrame
 * @property {import('./delay.js').FrameTime} time when it was captured
 * @property {{close?: () => void} | null} image the frame's pixels, kept for the synced view only. It belongs to the
 *   collection until `take` returns the frame; the collection closes the images of frames that it forgets.
 */

/** Frames sent over WebSocket. The server returns their sequence numbers. */
export class PendingFrames {
  constructor() {
    /** Frames by sequence number, in the order in which they were sent. */
    this._frames = new Map();
  }

  get size() {
    return this._frames.size;
  }

  /**
   * @param {number} seq
   * @param {PendingFrame & {sentMs: number, epoch: number}} frame
   */
  add(seq, frame) {
    this._frames.set(seq, frame);
  }

  /** Remove and return a frame; the caller closes its image. Returns undefined for an unknown sequence number. */
  take(seq) {
    const frame = this._frames.get(seq);
    this._frames.delete(seq);
    return frame;
  }

  /** Forget all frames up to and including the sequence number `ack`. */
  acknowledge(ack) {
    for (const [seq, frame] of this._frames) {
      if (seq > ack) break;
      frame.image?.close?.();
      this._frames.delete(seq);
    }
  }

  /** Forget all frames, for example because the connection was lost. */
  clear() {
    this.acknowledge(Infinity);
  }
}

/** One second of video: a result for an older frame is too late to be shown. */
const MAX_VIDEO_FRAMES = 30;

/** Frames sent as video. The encoder keeps nothing of a frame but its capture time, so results are matched by it. */
export class PendingVideoFrames {
  constructor() {
    /** Oldest first. @type {PendingFrame[]} */
    this._frames = [];
  }

  get size() {
    return this._frames.length;
  }

  /** @param {PendingFrame & {mediaMs: number}} frame `mediaMs`: capture time as the sent video has it */
  add(frame) {
    this._frames.push(frame);
    while (this._frames.length > MAX_VIDEO_FRAMES) this._frames.shift().image?.close?.();
  }

  /**
   * Remove and return the frame whose capture time is nearest, and forget all older frames.
   * @param {number} capturedMs
   * @param {number} toleranceMs largest accepted difference
   * @returns {PendingFrame | undefined} undefined if no frame is within the tolerance
   */
  take(capturedMs, toleranceMs) {
    let nearest = -1;
    for (const [index, frame] of this._frames.entries()) {
      const difference = Math.abs(frame.mediaMs - capturedMs);
      if (difference > toleranceMs) continue;
      if (nearest < 0 || difference < Math.abs(this._frames[nearest].mediaMs - capturedMs)) nearest = index;
    }
    if (nearest < 0) return undefined;
    const removed = this._frames.splice(0, nearest + 1);
    for (const older of removed.slice(0, -1)) older.image?.close?.();
    return removed.at(-1);
  }

  has(frame) {
    return this._frames.includes(frame);
  }

  clear() {
    for (const frame of this._frames) frame.image?.close?.();
    this._frames = [];
  }
}
