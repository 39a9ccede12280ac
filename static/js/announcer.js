// Tells users of screen readers what happens: changes of the playback at once, and counts of objects now and then.

/** A change of counts is announced when it has lasted this long: detections of single frames come and go. */
const SETTLE_MS = 2000;
/** Shortest time between two announcements of counts, so that they do not drown the reading of the page. */
const INTERVAL_MS = 10000;
/** At most this many classes are named. */
const MAX_CLASSES = 4;

/** Decides which counts to announce, and when. Pure. */
export class CountAnnouncements {
  constructor() {
    this._candidate = '';
    this._candidateSinceMs = 0;
    this._announced = '';
    this._announcedMs = -Infinity;
  }

  /** Forget what was announced, because another source starts. */
  clear() {
    this._candidate = this._announced = '';
    this._announcedMs = -Infinity;
  }

  /**
   * @param {[string, number][]} counts number of objects by label
   * @param {number} nowMs
   * @returns {string | null} text to announce; null: nothing now
   */
  update(counts, nowMs) {
    const text = describeCounts(counts);
    if (text !== this._candidate) {
      this._candidate = text;
      this._candidateSinceMs = nowMs;
    }
    if (text === this._announced) return null;
    if (nowMs - this._candidateSinceMs < SETTLE_MS || nowMs - this._announcedMs < INTERVAL_MS) return null;
    this._announced = text;
    this._announcedMs = nowMs;
    return text || 'No objects';
  }
}

/** @param {[string, number][]} counts @returns {string} such as "person: 2, bus: 1"; empty without objects */
export function describeCounts(counts) {
  const present = counts.filter(([, count]) => count > 0).sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0]));
  const parts = present.slice(0, MAX_CLASSES).map(([label, count]) => `${label}: ${count}`);
  if (present.length > MAX_CLASSES) parts.push(`${present.length - MAX_CLASSES} more classes`);
  return parts.join(', ');
}

export class Announcer {
  constructor() {
    this._element = document.getElementById('announcer');
    this._counts = new CountAnnouncements();
  }

  /** Announce a change at once. @param {string} text */
  say(text) {
    this._element.textContent = text;
  }

  /** @param {[string, number][]} counts number of objects by label @param {number} nowMs */
  updateCounts(counts, nowMs) {
    const text = this._counts.update(counts, nowMs);
    if (text !== null) this.say(text);
  }

  clearCounts() {
    this._counts.clear();
  }
}
