// Frames that were sent and have no outcome yet: capture time, size and, in synced view, the picture; pure.

export class InFlight {
  constructor() {
    /** Sequence number to what the page must remember of that frame, in the order sent. */
    this._frames = new Map();
  }

  get size() {
    return this._frames.size;
  }

  /**
   * @param {number} seq
   * @param {{capturedMs: number, sentMs: number, epoch: number, image: {close?: () => void} | null}} frame
   */
  add(seq, frame) {
    this._frames.set(seq, frame);
  }

  /** Return and forget a frame; its picture is the caller's now. Undefined when it is not known. */
  take(seq) {
    const frame = this._frames.get(seq);
    this._frames.delete(seq);
    return frame;
  }

  /** Forget everything up to `ack`, pictures included. */
  settle(ack) {
    for (const [seq, frame] of this._frames) {
      if (seq > ack) break;
      frame.image?.close?.();
      this._frames.delete(seq);
    }
  }

  /** Forget everything: the connection is gone. */
  clear() {
    this.settle(Infinity);
  }
}
