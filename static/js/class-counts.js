// Counts objects per class over the last ten minutes, in intervals of ten seconds. Pure.
//
// With track ids, the count of an interval is the number of distinct tracks that were seen in it, so an object that
// stays counts once. Without track ids nobody knows which boxes belong to one object: then the count is the mean number
// of boxes per result.

export const INTERVAL_MS = 10000;
export const INTERVALS = 60;

/** @typedef {'tracks' | 'mean'} Kind what a count is: distinct tracks, or the mean number of boxes per result */

/**
 * @typedef {object} Series
 * @property {string} label
 * @property {number} classId
 * @property {Kind} kind `tracks` if any interval has track ids
 * @property {number} total count over all intervals together, by the same rule
 * @property {(number | null)[]} values one per interval, oldest first; null: no results
 */

export class ClassCounts {
  constructor() {
    /** Intervals with results, oldest first. */
    this._intervals = [];
    /** Track ids start again with each session. */
    this._session = 0;
  }

  /** From now on, equal track ids are other objects, because a session or a source begins. */
  startSession() {
    this._session += 1;
  }

  clear() {
    this._intervals = [];
  }

  /**
   * Count a result.
   * @param {number[][]} rows x1, y1, x2, y2, score, class id, and track id if objects are tracked
   * @param {string[]} labels of the model, by class id
   * @param {number} nowMs Unix time
   */
  add(rows, labels, nowMs) {
    const interval = this._intervalAt(nowMs);
    interval.results += 1;
    for (const row of rows) {
      const label = labels[row[5]] ?? `class ${row[5]}`;
      let entry = interval.classes.get(label);
      if (!entry) interval.classes.set(label, (entry = { classId: row[5], boxes: 0, tracks: new Set() }));
      entry.boxes += 1;
      if (row.length > 6 && row[6] !== null) entry.tracks.add(`${this._session}:${row[6]}`);
    }
  }

  /** @param {number} nowMs Unix time @returns {Series[]} the most frequent class first */
  series(nowMs) {
    const first = this._firstStart(nowMs);
    const intervals = this._intervals.filter(({ startMs }) => startMs >= first);
    const labels = new Set(intervals.flatMap(({ classes }) => [...classes.keys()]));
    return [...labels].map((label) => seriesOf(label, intervals, first)).sort((a, b) => b.total - a.total);
  }

  /**
   * @param {number} nowMs Unix time
   * @returns {string} CSV (RFC 4180): a row per interval and class, for intervals with results
   */
  toCsv(nowMs) {
    const first = this._firstStart(nowMs);
    const lines = ['start,seconds,class,count,kind,results'];
    for (const { label, kind, values } of this.series(nowMs)) {
      for (const { startMs, results } of this._intervals) {
        if (startMs < first) continue;
        const count = values[(startMs - first) / INTERVAL_MS];
        const start = new Date(startMs).toISOString();
        lines.push([start, INTERVAL_MS / 1000, csvText(label), roundTo2(count), kind, results].join(','));
      }
    }
    return `${lines.join('\r\n')}\r\n`;
  }

  _intervalAt(nowMs) {
    const startMs = Math.floor(nowMs / INTERVAL_MS) * INTERVAL_MS;
    const last = this._intervals.at(-1);
    // A clock that was set back must not disturb the order.
    if (last && last.startMs >= startMs) return last;
    const interval = { startMs, results: 0, classes: new Map() };
    this._intervals.push(interval);
    while (this._intervals[0].startMs < this._firstStart(nowMs)) this._intervals.shift();
    return interval;
  }

  _firstStart(nowMs) {
    return (Math.floor(nowMs / INTERVAL_MS) - INTERVALS + 1) * INTERVAL_MS;
  }
}

function seriesOf(label, intervals, firstStartMs) {
  const entries = intervals.map(({ classes }) => classes.get(label));
  const kind = entries.some((entry) => entry?.tracks.size) ? 'tracks' : 'mean';
  const values = new Array(INTERVALS).fill(null);
  const tracks = new Set();
  let [boxes, results] = [0, 0];
  intervals.forEach((interval, index) => {
    const entry = entries[index];
    results += interval.results;
    boxes += entry?.boxes ?? 0;
    for (const track of entry?.tracks ?? []) tracks.add(track);
    const count = kind === 'tracks' ? (entry?.tracks.size ?? 0) : (entry?.boxes ?? 0) / interval.results;
    values[(interval.startMs - firstStartMs) / INTERVAL_MS] = count;
  });
  const { classId } = entries.find(Boolean);
  return { label, classId, kind, total: kind === 'tracks' ? tracks.size : boxes / results, values };
}

function roundTo2(count) {
  return Math.round(count * 100) / 100;
}

/** Quote a text. Spreadsheets would run a label that begins like a formula. */
function csvText(text) {
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return `"${safe.replaceAll('"', '""')}"`;
}
