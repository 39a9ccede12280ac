// Frames that went out as video and have no result yet: capture time and, in synced view, the picture; pure.

/** A second of video: results of older frames are of no use. */
const KEPT = 30;

export class RecentFrames {
  constructor() {
    /** Oldest first. */
    this._frames = [];
  }

  get size() {
    return this._frames.length;
  }

  /** @param {{capturedMs: number, image: {close?: () => void} | null}} frame */
  add(frame) {
    this._frames.push(frame);
    while (this._frames.length > KEPT) this._frames.shift().image?.close?.();
  }

  /**
   * Return and forget the frame captured nearest to a time, and forget those before it.
   * @param {number} capturedMs @param {number} toleranceMs
   */
  take(capturedMs, toleranceMs) {
    let nearest = -1;
    for (const [index, frame] of this._frames.entries()) {
      const distance = Math.abs(frame.capturedMs - capturedMs);
      if (distance > toleranceMs) continue;
      if (nearest < 0 || distance < Math.abs(this._frames[nearest].capturedMs - capturedMs)) nearest = index;
    }
    if (nearest < 0) return undefined;
    const taken = this._frames.splice(0, nearest + 1);
    for (const older of taken.slice(0, -1)) older.image?.close?.();
    return taken.at(-1);
  }

  has(frame) {
    return this._frames.includes(frame);
  }

  clear() {
    for (const frame of this._frames) frame.image?.close?.();
    this._frames = [];
  }
}
