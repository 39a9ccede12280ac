// Sends video frames and matches results to them: checks flow control, encodes, sends, and receives.

import { Adaptation, PERIOD_MS } from './adaptation.js';
import { DelayMeter } from './delay.js';
import { FlowControl } from './flow-control.js';
import { fitWithin } from './geometry.js';
import { JpegEncoder } from './jpeg-encoder.js';
import { PendingFrames, PendingVideoFrames } from './pending-frames.js';
import { FLAG_DISCONTINUITY, packFrame } from './protocol.js';
import { RateMeter, ReasonCounter, RecentValues } from './statistics.js';

/** Bounds of the longest side of sent frames, which otherwise follows the model's input size. */
const MAX_SIDE_PX = 1280;
const MIN_SIDE_PX = 320;
/** A result belongs to the frame whose capture time differs by at most this: half the interval of 30 fps. */
const MATCH_TOLERANCE_MS = 16;

/** The measurements that the statistics panel shows. */
class Measurements {
  constructor() {
    this.sent = new RateMeter();
    this.results = new RateMeter();
    /** From the capture of a frame to the paint of its boxes. */
    this.delay = new DelayMeter();
    this.roundTripMs = new RecentValues();
    this.serverMs = new RecentValues();
    this.queueMs = new RecentValues();
    this.inferMs = new RecentValues();
    /** Round trip without the server's own time. */
    this.networkMs = new RecentValues(15);
    this.encodeMs = new RecentValues(15);
    /** Sent frames that have no result: the server dropped them or failed. */
    this.dropped = new ReasonCounter();
    /** Camera frames that were not sent. */
    this.skipped = new ReasonCounter();
    /** Results since the last one whose frame the page still knew. */
    this.unmatched = 0;
    this.sentCount = 0;
    this.resultCount = 0;
    /** Size in pixels, JPEG quality (0 to 1) and size in bytes of the last sent frame. */
    this.lastFrame = { width: 0, height: 0, quality: 0, bytes: 0 };
  }
}

export class Pipeline {
  /**
   * @param {import('./transport.js').Transport} transport
   * @param {(result: object, image: ImageBitmap | HTMLCanvasElement | null,
   *   time: {capturedMs: number, origin: 'camera' | 'page'} | null) => void} onResult receives results in the order of
   *   their frames; `image`: the frame's pixels if `keepImages` is set; the receiver closes it; `time`: when the frame
   *   was captured; null: not known
   */
  constructor(transport, onResult) {
    this._transport = transport;
    this._onResult = onResult;
    this._encoder = new JpegEncoder();
    this._adaptation = new Adaptation();
    this._isEncoding = false;
    /** Size of the source and of the sent frames, as text, to detect changes. */
    this._frameGeometry = '';
    this._isDiscontinuity = false;
    this._lastResultSeq = 0;
    this._inputSidePx = MAX_SIDE_PX;
    this._periodStartMs = 0;
    this._periodFrames = 0;
    this._periodUnsent = 0;
    this.flow = new FlowControl();
    this.pending = new PendingFrames();
    this.pendingVideo = new PendingVideoFrames();
    this.measurements = new Measurements();
    /** Changes with the size or the source of the frames. Results of an earlier epoch are not shown. */
    this.epoch = 0;
    /** Whether to keep the pixels of each frame until its result arrives, for the synced view. */
    this.keepImages = false;
    this.paused = false;
  }

  /** Where frames are encoded as JPEG: `worker` or `canvas`. */
  get encoderBackend() {
    return this._encoder.backend;
  }

  /** Mark the next frame as a new beginning, for example because the source has changed. */
  markDiscontinuity() {
    this._frameGeometry = '';
    this._isDiscontinuity = true;
  }

  /** Discard all measurements. Frames in flight stay in flight. */
  resetMeasurements() {
    this.measurements = new Measurements();
  }

  /** Forget all frames in flight. */
  clearPending() {
    this.pending.clear();
    this.pendingVideo.clear();
  }

  handleWelcome(message, nowMs) {
    this.clearPending();
    // Over WebRTC there is no window: the browser's congestion control adapts the video.
    this.flow.open(message.flow ?? { win: 1, max_fps: null }, nowMs);
    // A new session counts from another number. WebRTC counts every video frame, so its numbers are much higher.
    if (!message.resumed) this._lastResultSeq = 0;
    const side = Math.max(...(message.model.input ?? [MAX_SIDE_PX]));
    this._inputSidePx = Math.min(MAX_SIDE_PX, Math.max(MIN_SIDE_PX, side));
  }

  /** Handle any message of the server except `welcome`. */
  handleMessage(message, nowMs) {
    this.flow.handleMessage(message);
    const { dropped } = this.measurements;
    if (message.type === 'result') this._handleResult(message, nowMs);
    else if (message.type === 'drop') dropped.add(message.reason, message.to - message.from + 1);
    else if (message.type === 'error' && message.seq !== undefined) dropped.add('error');
    this.pending.acknowledge(this.flow.ack);
  }

  /**
   * Process a new frame: send it, or skip it before encoding it if it may not be sent.
   * @param {HTMLVideoElement | VideoFrame} video
   * @param {number} nowMs
   * @param {import('./delay.js').FrameTime} time
   * @returns {Promise<void> | void} settles when the frame is no longer needed
   */
  processFrame(video, nowMs, time) {
    if (this.paused || !this._transport.isOpen || !sizeOf(video).width) return undefined;
    if (this._transport.usesWebRtc) return this._rememberVideoFrame(video, time);
    this._adapt(nowMs);
    this._periodFrames += 1;
    const blockedBy = this._isEncoding ? 'encoder' : this.flow.blockedBy(nowMs, this._transport.unsentBytes);
    if (blockedBy) {
      if (blockedBy === 'unsent') this._periodUnsent += 1;
      this.measurements.skipped.add(blockedBy);
      return undefined;
    }
    this._isEncoding = true;
    return this._encodeAndSend(video, nowMs, time)
      .catch(() => this.measurements.skipped.add('encoder'))
      .finally(() => {
        this._isEncoding = false;
      });
  }

  /** Count a video frame that the browser has encoded. @param {{bytes: number, width: number, height: number}} frame */
  handleEncodedFrame({ bytes, width, height }) {
    this.measurements.sent.tick(performance.now());
    this.measurements.sentCount += 1;
    if (width) this.measurements.lastFrame = { width, height, quality: 0, bytes };
  }

  async _encodeAndSend(video, takenMs, time) {
    const { generation } = this._transport;
    const { quality, size } = this._adaptation.settings;
    const source = sizeOf(video);
    const sentSize = fitWithin(source.width, source.height, Math.round(this._inputSidePx * size));
    const epoch = this._epochOf(source, sentSize);
    const options = { ...sentSize, quality, keepImage: this.keepImages };
    const { bytes, image } = await this._encoder.encode(video, options);
    const nowMs = performance.now();
    this.measurements.encodeMs.add(nowMs - takenMs);
    const isSameConnection = this._transport.generation === generation && this._transport.isOpen;
    if (!isSameConnection || this.paused || this.flow.isOnHold) {
      image?.close?.();
      this.measurements.skipped.add('hold');
      return;
    }
    const seq = this.flow.send(takenMs);
    const flags = this._isDiscontinuity ? FLAG_DISCONTINUITY : 0;
    this._isDiscontinuity = false;
    const header = { seq, tsUs: takenMs * 1000, epoch, flags, ...sentSize };
    this._transport.sendFrame(packFrame(header, bytes));
    this.pending.add(seq, { time, sentMs: nowMs, epoch, image });
    this.measurements.sent.tick(nowMs);
    this.measurements.sentCount += 1;
    this.measurements.lastFrame = { ...sentSize, quality, bytes: bytes.byteLength };
  }

  _epochOf(source, sentSize) {
    const geometry = `${source.width}x${source.height}>${sentSize.width}x${sentSize.height}`;
    if (geometry !== this._frameGeometry) {
      this._frameGeometry = geometry;
      this.epoch = (this.epoch + 1) & 0xffff;
    }
    return this.epoch;
  }

  _handleResult(message, nowMs) {
    const { measurements } = this;
    measurements.results.tick(nowMs);
    measurements.resultCount += 1;
    measurements.serverMs.add(message.t.server_ms);
    measurements.queueMs.add(message.t.queue_ms);
    measurements.inferMs.add(message.t.infer_ms);
    if (message.rtp === undefined) this._handleImageResult(message, nowMs);
    else this._handleVideoResult(message, nowMs);
  }

  /** Match a result of a WebSocket session by sequence number. */
  _handleImageResult(message, nowMs) {
    const frame = this.pending.take(message.seq);
    this._countUnmatched(frame);
    if (!frame) return;
    this._addRoundTrip(nowMs - frame.sentMs, message);
    this._deliver(message, frame, message.epoch === this.epoch);
  }

  /** Match a result of a WebRTC session by capture time, which the RTP timestamp carries. */
  _handleVideoResult(message, nowMs) {
    const capturedMs = this._transport.webRtc.clock.toMs(message.rtp);
    const frame = capturedMs === null ? undefined : this.pendingVideo.take(capturedMs, MATCH_TOLERANCE_MS);
    this._countUnmatched(frame);
    if (capturedMs !== null) this._addRoundTrip(nowMs - capturedMs, message);
    this._deliver(message, frame ?? { image: null, time: null }, true);
  }

  _countUnmatched(frame) {
    this.measurements.unmatched = frame ? 0 : this.measurements.unmatched + 1;
  }

  _addRoundTrip(roundTripMs, message) {
    this.measurements.roundTripMs.add(roundTripMs);
    this.measurements.networkMs.add(Math.max(0, roundTripMs - message.t.server_ms));
  }

  _deliver(message, { image, time }, isCurrentEpoch) {
    if (!isCurrentEpoch || message.seq < this._lastResultSeq) {
      image?.close?.();
      return;
    }
    this._lastResultSeq = message.seq;
    this._onResult(message, image, time);
  }

  async _rememberVideoFrame(video, time) {
    const frame = { mediaMs: time.mediaMs, time, image: null };
    this.pendingVideo.add(frame);
    if (!this.keepImages) return;
    const image = await createImageBitmap(video).catch(() => null);
    if (this.pendingVideo.has(frame)) frame.image = image;
    else image?.close();
  }

  _adapt(nowMs) {
    if (nowMs - this._periodStartMs < PERIOD_MS) return;
    const settings = this._adaptation.update({
      networkMs: this.measurements.networkMs.quantile(0.5),
      unsentShare: this._periodFrames ? this._periodUnsent / this._periodFrames : 0,
      encodeMs: this.measurements.encodeMs.quantile(0.5),
    });
    this.flow.targetFps = settings.fps;
    this._periodStartMs = nowMs;
    this._periodFrames = 0;
    this._periodUnsent = 0;
  }
}

/** @param {HTMLVideoElement | VideoFrame} frame @returns {{width: number, height: number}} in pixels */
function sizeOf(frame) {
  return { width: frame.videoWidth ?? frame.displayWidth, height: frame.videoHeight ?? frame.displayHeight };
}
