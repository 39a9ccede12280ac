// Measures the delay from the capture of a frame to the paint of its boxes. Pure.

import { RecentValues } from './statistics.js';

/** A capture time further back than this is on another clock than the page's. */
const MAX_CAPTURE_AGE_MS = 10000;

/**
 * @typedef {object} FrameTime
 * @property {number} capturedMs when the frame was captured, on the page's clock
 * @property {'camera' | 'page'} origin `camera`: the browser knows when the camera captured the frame; `page`: it does
 *   not, and `capturedMs` is the time at which the page took the frame from the video element
 * @property {number} mediaMs time by which results of WebRTC are matched: capture time, else time of presentation
 * @property {number | null} displayMs when the frame is expected on the screen; null if the browser does not say it
 */

/**
 * Return the times of a frame of the video element.
 * @param {{captureTime?: number, presentationTime?: number, expectedDisplayTime?: number} | undefined} metadata of
 *   requestVideoFrameCallback; undefined in browsers without it
 * @param {number} nowMs
 * @returns {FrameTime}
 */
export function frameTime(metadata, nowMs) {
  const { captureTime, presentationTime, expectedDisplayTime } = metadata ?? {};
  const ageMs = nowMs - captureTime; // NaN without a capture time, and then neither comparison holds
  const isKnown = ageMs >= 0 && ageMs < MAX_CAPTURE_AGE_MS;
  return {
    capturedMs: isKnown ? captureTime : nowMs,
    origin: isKnown ? 'camera' : 'page',
    mediaMs: captureTime ?? presentationTime ?? nowMs,
    displayMs: expectedDisplayTime ?? null,
  };
}

/**
 * Return when something that is drawn now appears on the screen.
 * @param {number} nowMs time at which it was drawn, or later
 * @param {number | null} displayMs when the present frame is expected on the screen; null: not known
 */
export function paintTime(nowMs, displayMs) {
  return Math.max(nowMs, displayMs ?? 0);
}

/** The most recent delays. Those of one origin only, because the two cannot be compared. */
export class DelayMeter {
  constructor() {
    this._recent = new RecentValues();
    /** @type {'camera' | 'page' | null} null before the first value */
    this.origin = null;
  }

  /** Delays in milliseconds, newest last. */
  get values() {
    return this._recent.values;
  }

  /**
   * @param {{capturedMs: number, origin: 'camera' | 'page'}} time of the frame
   * @param {number} paintedMs when its boxes appeared on the screen
   */
  add({ capturedMs, origin }, paintedMs) {
    if (origin !== this.origin) this.clear();
    this.origin = origin;
    this._recent.add(Math.max(0, paintedMs - capturedMs));
  }

  /** @param {number} q 0 to 1 @param {number} newest use only this many of the newest values */
  quantile(q, newest) {
    return this._recent.quantile(q, newest);
  }

  /** Forget all delays, for example because another source starts. */
  clear() {
    this._recent = new RecentValues();
    this.origin = null;
  }
}
