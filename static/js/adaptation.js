// Adapts frame rate, JPEG quality and frame size to what the network and this device can sustain. Pure.

/** How often the pipeline calls `update`. */
export const PERIOD_MS = 500;

/**
 * Settings from the best to the most economical. The frame rate is reduced first because viewers notice it least, the
 * frame size last because small objects can no longer be detected. `size` is relative to the model's input side.
 */
export const LADDER = [
  { fps: 30, quality: 0.82, size: 1 },
  { fps: 20, quality: 0.82, size: 1 },
  { fps: 15, quality: 0.82, size: 1 },
  { fps: 15, quality: 0.7, size: 1 },
  { fps: 15, quality: 0.55, size: 1 },
  { fps: 15, quality: 0.55, size: 0.75 },
  { fps: 10, quality: 0.55, size: 0.75 },
  { fps: 10, quality: 0.45, size: 0.6 },
];

/** The network counts as congested above this network time of a frame and its result. */
const MAX_NETWORK_MS = 300;
/** The network counts as congested if more than this share of camera frames found an earlier frame still unsent. */
const MAX_UNSENT_SHARE = 0.25;
/** Largest share of the frame interval that encoding may take. */
const MAX_ENCODE_SHARE = 0.8;
/** Periods without congestion before a step up. The number doubles whenever a step up had to be taken back. */
const STABLE_PERIODS = 6;
const STABLE_PERIODS_MAX = 96;
/** Periods to ignore after a step: the measurements still contain round trips from before it. */
const SETTLE_PERIODS = 2;

export class Adaptation {
  constructor() {
    /** Index into LADDER. */
    this.level = 0;
    this._stablePeriods = 0;
    this._settlePeriods = 0;
    this._requiredPeriods = STABLE_PERIODS;
    this._steppedUp = false;
  }

  get settings() {
    return LADDER[this.level];
  }

  /**
   * Evaluate one period and return the settings for the next.
   * @param {{networkMs: number | null, unsentShare: number, encodeMs: number | null}} period `networkMs`: median
   *   round trip without the server's own time; null: not measured
   * @returns {{fps: number, quality: number, size: number}} an entry of LADDER
   */
  update(period) {
    if (this._settlePeriods > 0) {
      this._settlePeriods -= 1;
    } else if (this._isCongested(period)) {
      this._stepDown();
    } else if (++this._stablePeriods >= this._requiredPeriods && this.level > 0) {
      this._stepUp();
    }
    return this.settings;
  }

  _isCongested({ networkMs, unsentShare, encodeMs }) {
    return (
      (networkMs ?? 0) > MAX_NETWORK_MS ||
      unsentShare > MAX_UNSENT_SHARE ||
      (encodeMs ?? 0) > (MAX_ENCODE_SHARE * 1000) / this.settings.fps
    );
  }

  _stepUp() {
    this.level -= 1;
    this._stablePeriods = 0;
    this._steppedUp = true;
    this._settlePeriods = SETTLE_PERIODS;
  }

  _stepDown() {
    // If the last step up is taken back at once, wait longer before the next. Otherwise the quality would oscillate.
    this._requiredPeriods =
      this._steppedUp && this._stablePeriods < STABLE_PERIODS
        ? Math.min(this._requiredPeriods * 2, STABLE_PERIODS_MAX)
        : STABLE_PERIODS;
    this._steppedUp = false;
    this._stablePeriods = 0;
    this._settlePeriods = SETTLE_PERIODS;
    this.level = Math.min(this.level + 1, LADDER.length - 1);
  }
}
