// From camera frame to boxes: asks the flow, encodes, sends, and matches each result to its frame.

import { Adaptation, PERIOD_MS } from './adaptation.js';
import { Encoder } from './encoder.js';
import { Flow } from './flow.js';
import { shrink } from './geometry.js';
import { InFlight } from './in-flight.js';
import { FLAG_DISCONTINUITY, packFrame } from './protocol.js';
import { RecentFrames } from './recent-frames.js';
import { RateMeter, Samples, Tally } from './statistics.js';

/** Longest side sent when the model's own input is not known or larger than a live stream should carry. */
const SIDE_MAX_PX = 1280;
const SIDE_MIN_PX = 320;
/** A result belongs to the frame captured within this time of its own; frames are 33 ms apart. */
const SAME_FRAME_MS = 16;

/** Everything that the statistics panel shows. */
class Measurements {
  constructor() {
    this.sent = new RateMeter();
    this.results = new RateMeter();
    this.roundTripMs = new Samples();
    this.serverMs = new Samples();
    this.queueMs = new Samples();
    this.inferMs = new Samples();
    this.wireMs = new Samples(15);
    this.encodeMs = new Samples(15);
    /** Frames the server took but did not infer, and frames it answered with an error. */
    this.dropped = new Tally();
    /** Camera frames that were not sent at all. */
    this.skipped = new Tally();
    this.sentCount = 0;
    this.resultCount = 0;
    this.frame = { width: 0, height: 0, quality: 0, bytes: 0 };
  }
}

export class Pipeline {
  /**
   * @param {import('./transport.js').Transport} connection
   * @param {(result: object, frame: {capturedMs: number, image: object | null}) => void} onResult only for
   *   frames of the present geometry, newest last
   */
  constructor(connection, onResult) {
    this._connection = connection;
    this._onResult = onResult;
    this._encoder = new Encoder();
    this._adaptation = new Adaptation();
    this._busy = false;
    this._geometry = '';
    this._discontinuity = false;
    this._lastResultSeq = 0;
    this._inputSide = SIDE_MAX_PX;
    this._periodStartMs = 0;
    this._periodFrames = 0;
    this._periodUnsent = 0;
    this.flow = new Flow();
    this.inFlight = new InFlight();
    /** Frames that go out as video. */
    this.recent = new RecentFrames();
    this.measured = new Measurements();
    this.epoch = 0;
    /** Whether each frame's picture is kept until its result is there (synced view). */
    this.keepImages = false;
    this.paused = false;
  }

  get encoderWay() {
    return this._encoder.way;
  }

  /** Another source or a jump in it: the next frame does not continue the last. */
  cut() {
    this._geometry = '';
    this._discontinuity = true;
  }

  /** Counts begin anew; what is in flight stays. */
  resetMeasurements() {
    this.measured = new Measurements();
  }

  welcomed(message, nowMs) {
    this.inFlight.clear();
    this.recent.clear();
    // Video has no window: its sender adapts by itself.
    this.flow.open(message.flow ?? { win: 1, max_fps: null }, nowMs);
    // Another session counts in its own way: video counts every frame, so its numbers run far ahead.
    if (!message.resumed) this._lastResultSeq = 0;
    const side = Math.max(...(message.model.input ?? [SIDE_MAX_PX]));
    this._inputSide = Math.min(SIDE_MAX_PX, Math.max(SIDE_MIN_PX, side));
  }

  /**
   * A new picture is on the video element: send it, or drop it before any work is spent on it.
   * @param {HTMLVideoElement} video
   * @param {number} nowMs
   * @param {number} capturedMs
   */
  offer(video, nowMs, capturedMs) {
    if (this.paused || !this._connection.isOpen || !video.videoWidth) return;
    if (this._connection.carriesVideo) {
      this._remember(video, capturedMs);
      return;
    }
    this._adapt(nowMs);
    this._periodFrames += 1;
    const refusal = this._busy ? 'encoder' : this.flow.refusal(nowMs, this._connection.unsentBytes);
    if (refusal) {
      if (refusal === 'unsent') this._periodUnsent += 1;
      this.measured.skipped.add(refusal);
      return;
    }
    this._busy = true;
    this._encodeAndSend(video, nowMs)
      .catch(() => this.measured.skipped.add('encoder'))
      .finally(() => {
        this._busy = false;
      });
  }

  /** The browser has encoded a frame of the video. @param {{bytes: number, width: number, height: number}} frame */
  encoded({ bytes, width, height }) {
    this.measured.sent.tick(performance.now());
    this.measured.sentCount += 1;
    if (width) this.measured.frame = { width, height, quality: 0, bytes };
  }

  /** Take any message of the server but `welcome`. */
  heard(message, nowMs) {
    this.flow.heard(message);
    if (message.type === 'result') this._resultHeard(message, nowMs);
    else if (message.type === 'drop') this.measured.dropped.add(message.reason, message.to - message.from + 1);
    else if (message.type === 'error' && message.seq !== undefined) this.measured.dropped.add('error');
    this.inFlight.settle(this.flow.ack);
  }

  async _encodeAndSend(video, capturedMs) {
    const { generation } = this._connection;
    const { quality, size } = this._adaptation.settings;
    const wanted = shrink(video.videoWidth, video.videoHeight, Math.round(this._inputSide * size));
    const epoch = this._epochOf(video, wanted);
    const { bytes, image } = await this._encoder.encode(video, { ...wanted, quality, keep: this.keepImages });
    const nowMs = performance.now();
    this.measured.encodeMs.add(nowMs - capturedMs);
    if (this._connection.generation !== generation || !this._connection.isOpen || this.paused || this.flow.win === 0) {
      image?.close?.();
      this.measured.skipped.add('hold');
      return;
    }
    const seq = this.flow.send(capturedMs);
    const flags = this._discontinuity ? FLAG_DISCONTINUITY : 0;
    this._discontinuity = false;
    const header = { seq, tsUs: capturedMs * 1000, epoch, flags, ...wanted };
    this._connection.sendFrame(packFrame(header, bytes));
    this.inFlight.add(seq, { capturedMs, sentMs: nowMs, epoch, image });
    this.measured.sent.tick(nowMs);
    this.measured.sentCount += 1;
    this.measured.frame = { ...wanted, quality, bytes: bytes.byteLength };
  }

  /** The epoch rises with every change of the picture's size or source. */
  _epochOf(video, sent) {
    const geometry = `${video.videoWidth}x${video.videoHeight}>${sent.width}x${sent.height}`;
    if (geometry !== this._geometry) {
      this._geometry = geometry;
      this.epoch = (this.epoch + 1) & 0xffff;
    }
    return this.epoch;
  }

  _resultHeard(message, nowMs) {
    const { measured } = this;
    measured.results.tick(nowMs);
    measured.resultCount += 1;
    measured.serverMs.add(message.t.server_ms);
    measured.queueMs.add(message.t.queue_ms);
    measured.inferMs.add(message.t.infer_ms);
    if (message.rtp !== undefined) {
      this._videoResultHeard(message, nowMs);
      return;
    }
    const frame = this.inFlight.take(message.seq);
    if (!frame) return;
    measured.roundTripMs.add(nowMs - frame.sentMs);
    measured.wireMs.add(Math.max(0, nowMs - frame.sentMs - message.t.server_ms));
    if (message.epoch !== this.epoch || message.seq < this._lastResultSeq) {
      frame.image?.close?.();
      return;
    }
    this._lastResultSeq = message.seq;
    this._onResult(message, frame);
  }

  /** Match by time of capture: nothing else of a frame survives its way through the encoder. */
  _videoResultHeard(message, nowMs) {
    const capturedMs = this._connection.video.clock.toMs(message.rtp);
    const frame = capturedMs === null ? undefined : this.recent.take(capturedMs, SAME_FRAME_MS);
    if (capturedMs !== null) {
      this.measured.roundTripMs.add(nowMs - capturedMs);
      this.measured.wireMs.add(Math.max(0, nowMs - capturedMs - message.t.server_ms));
    }
    if (message.seq < this._lastResultSeq) {
      frame?.image?.close?.();
      return;
    }
    this._lastResultSeq = message.seq;
    this._onResult(message, frame ?? { capturedMs: capturedMs ?? nowMs, image: null });
  }

  /** Keep a frame that goes out as video until its result is there; its picture too in synced view. */
  async _remember(video, capturedMs) {
    const frame = { capturedMs, image: null };
    this.recent.add(frame);
    if (!this.keepImages) return;
    const image = await createImageBitmap(video).catch(() => null);
    if (this.recent.has(frame)) frame.image = image;
    else image?.close();
  }

  _adapt(nowMs) {
    if (nowMs - this._periodStartMs < PERIOD_MS) return;
    const settings = this._adaptation.update({
      wireMs: this.measured.wireMs.quantile(0.5),
      unsentShare: this._periodFrames ? this._periodUnsent / this._periodFrames : 0,
      encodeMs: this.measured.encodeMs.quantile(0.5),
    });
    this.flow.ownFps = settings.fps;
    this._periodStartMs = nowMs;
    this._periodFrames = 0;
    this._periodUnsent = 0;
  }
}
