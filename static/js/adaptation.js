// Fits rate, then JPEG quality, then frame size to what the line and this device can take; pure.

/** How often the pipeline asks. */
export const PERIOD_MS = 500;

/**
 * From the best downwards. Fewer frames cost least of what a person sees, a smaller picture most: small
 * objects vanish with it. `size` is a share of the model's own input side.
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

/** Time on the wire, both ways, over which the line counts as crowded. */
const WIRE_LIMIT_MS = 300;
/** Share of camera frames that found an earlier one still unsent, over which the line counts as crowded. */
const UNSENT_LIMIT = 0.25;
/** Share of a frame's interval that encoding may take. */
const ENCODE_LIMIT = 0.8;
/** Periods without trouble before a step up; doubled each time a step up did not hold. */
const CALM_PERIODS = 6;
const CALM_PERIODS_MAX = 96;
/** Periods after a step in which its effect cannot be seen yet: old round trips are still in the samples. */
const SETTLE_PERIODS = 2;

export class Adaptation {
  constructor() {
    this.level = 0;
    this._calm = 0;
    this._settle = 0;
    this._needed = CALM_PERIODS;
    this._climbed = false;
  }

  get settings() {
    return LADDER[this.level];
  }

  /**
   * Judge one period and return the settings for the next.
   * @param {{wireMs: number | null, unsentShare: number, encodeMs: number | null}} period `wireMs`: median
   *   round trip less the server's own time; null where nothing was measured
   */
  update(period) {
    if (this._settle > 0) {
      this._settle -= 1;
    } else if (this._crowded(period)) {
      this._stepDown();
    } else if (++this._calm >= this._needed && this.level > 0) {
      this.level -= 1;
      this._calm = 0;
      this._climbed = true;
      this._settle = SETTLE_PERIODS;
    }
    return this.settings;
  }

  _crowded({ wireMs, unsentShare, encodeMs }) {
    return (
      (wireMs ?? 0) > WIRE_LIMIT_MS ||
      unsentShare > UNSENT_LIMIT ||
      (encodeMs ?? 0) > (ENCODE_LIMIT * 1000) / this.settings.fps
    );
  }

  _stepDown() {
    // A climb that failed at once: wait longer before the next, else the picture pumps.
    this._needed =
      this._climbed && this._calm < CALM_PERIODS ? Math.min(this._needed * 2, CALM_PERIODS_MAX) : CALM_PERIODS;
    this._climbed = false;
    this._calm = 0;
    this._settle = SETTLE_PERIODS;
    this.level = Math.min(this.level + 1, LADDER.length - 1);
  }
}
