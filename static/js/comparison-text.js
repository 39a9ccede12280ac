// Turns the field `comparison` of GET /versions into rows of text and numbers for the versions page. Pure.

const NAMES = {
  boxes: 'Number of boxes',
  disagreement: 'Disagreement',
  score: 'Scores of the same boxes',
  jitter: 'Movement from frame to frame',
  run_ms: 'Time of a run, not judged',
};
const VERDICTS = { undecided: 'Undecided', no_difference: 'No difference', differs: 'Differs' };

/**
 * A difference with its intervals; null: unknown or without a bound.
 * @typedef {{name: string, verdict: string, judged: boolean, value: number | null, interval: [number, number] | null,
 *   always: [number | null, number | null], margin: number, text: string, note: string}} Difference
 */

/** @param {object} comparison @returns {Difference[]} one for each quantity */
export function quantityRows({ quantities }) {
  return Object.entries(quantities)
    .filter(([, { difference }]) => difference !== undefined)
    .map(([name, quantity]) => difference(NAMES[name] ?? name, quantity));
}

/** @param {object} comparison @returns {Difference[]} one for each class, those with most boxes first */
export function differenceRows({ classes }) {
  return Object.entries(classes)
    .filter(([, { difference }]) => difference !== undefined)
    .map(([name, quantity]) => difference(name, quantity));
}

function difference(name, { difference: value = null, interval = null, always_valid: always, margin, unit, verdict, judged }) {
  const told = unit === 'share' ? percent : (number) => signed(number, 3);
  const bound = (number, without) => (number === null ? without : told(number));
  const open = always.every((each) => each === null);
  return {
    name,
    verdict,
    judged,
    value,
    interval,
    always,
    margin,
    text: value === null ? '–' : told(value),
    note: open ? 'too early' : `${bound(always[0], '−∞')} to ${bound(always[1], '∞')}`,
  };
}

/** @param {Difference[]} rows @returns {number} a round number: charts reach from minus this number to this number */
export function reachOf(rows) {
  const numbers = rows.flatMap(({ value, interval, margin }) => [value ?? 0, ...(interval ?? []), 1.5 * margin].map(Math.abs));
  const most = Math.max(...numbers, 1e-6);
  const unit = 10 ** Math.floor(Math.log10(most));
  return [1, 1.5, 2, 2.5, 5, 10].map((step) => step * unit).find((end) => end >= most * 0.999);
}

/** @param {string} verdict @returns {string} */
export function verdictName(verdict) {
  return VERDICTS[verdict] ?? verdict;
}

/** @param {object} comparison @returns {string} how much has been compared */
export function countedText({ counted: { frames, streams, windows, windows_needed: needed, hours } }) {
  if (!frames) return `A verdict needs ${needed} windows of five minutes.`;
  const parts = [
    `${frames.toLocaleString('en')} frames`,
    `${streams} ${streams === 1 ? 'stream' : 'streams'}`,
    `${hours < 10 ? hours.toFixed(1) : Math.round(hours)} hours`,
  ];
  const rest = windows < needed ? `; a verdict needs ${needed} windows of five minutes, ${windows} are over` : '';
  return `From ${parts[0]} of ${parts[1]} in ${parts[2]}${rest}.`;
}

/**
 * Scale a history to a chart.
 * @param {{at: string, first: number, second: number, agreement?: number}[]} history
 * @param {(period: object) => number | undefined} pick
 * @param {number} most value at the top
 * @param {number} width @param {number} height
 * @returns {string} points of a line, without periods that have no value
 */
export function linePoints(history, pick, most, width, height) {
  const times = history.map(({ at }) => Date.parse(at));
  const [begin, end] = [Math.min(...times), Math.max(...times)];
  return history
    .map((period, index) => [end > begin ? ((times[index] - begin) / (end - begin)) * width : width / 2, pick(period)])
    .filter(([, value]) => value !== undefined)
    .map(([x, value]) => `${x.toFixed(1)},${(height - (Math.min(value, most) / most) * height).toFixed(1)}`)
    .join(' ');
}

/** @param {number} share @returns {string} such as `+3.1%` */
export function percent(share) {
  const digits = Math.abs(share) < 0.1 ? 1 : 0;
  return `${signed(100 * share, digits)}%`;
}

function signed(number, digits) {
  const text = Math.abs(number).toFixed(digits);
  return Number(text) === 0 ? text : `${number < 0 ? '−' : '+'}${text}`;
}
