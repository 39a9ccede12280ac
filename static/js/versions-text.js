// Turns the answer of GET /versions into rows of text and numbers for the versions page. Pure.

/** Which evaluation is shown, best first; others follow in the order of the manifest. */
const PREFERRED = ['promotion', 'test', 'val'];
const SIZES = ['small', 'medium', 'large'];
const QUANTILES = [['p50', 'median'], ['p95', '95%'], ['p99', '99%']];
const STAGE_NAMES = {
  mailbox: 'Live frame waits',
  post_queue: 'Posted image waits',
  decode: 'Decoding',
  queue: 'Queue of the device',
  inference: 'Model',
  postprocess: 'Boxes',
};
const TRANSPORT_NAMES = { http: 'posted images', websocket: 'WebSocket', webrtc: 'WebRTC', whip: 'WHIP' };

/**
 * One number of a version in a row; `low` and `high` bound it, null: unknown.
 * @typedef {{value: number, low: number | null, high: number | null, text: string, note: string}} Cell
 */
/** @typedef {{name: string, cells: (Cell | null)[]}} Row one cell for each version; null: not known */

/**
 * Choose the evaluations to show side by side: of the same pictures if all versions have one.
 * @param {Record<string, {evaluations?: Record<string, object>}>} versions
 * @returns {{parts: (string | null)[], comparable: boolean, known: boolean}}
 */
export function chooseEvaluations(versions) {
  const all = Object.values(versions).map(({ evaluations = {} }) => ordered(Object.keys(evaluations)).map((part) => [part, evaluations[part]]));
  for (const [, score] of all[0] ?? []) {
    const matching = all.map((scores) => scores.find(([, other]) => samePictures(score, other)));
    if (matching.every(Boolean)) return { parts: matching.map(([part]) => part), comparable: all.length > 1, known: true };
  }
  const parts = all.map((scores) => scores[0]?.[0] ?? null);
  return { parts, comparable: false, known: parts.some(Boolean) };
}

function ordered(parts) {
  const rank = (part) => (PREFERRED.includes(part) ? PREFERRED.indexOf(part) : PREFERRED.length);
  return [...parts].sort((a, b) => rank(a) - rank(b));
}

function samePictures(a, b) {
  return Boolean(a.set) && a.set === b.set && a.part === b.part && a.pictures === b.pictures;
}

/**
 * @param {Record<string, object>} versions
 * @param {ReturnType<typeof chooseEvaluations>} choice
 * @returns {string} which pictures the numbers are about, and whether they can be compared
 */
export function describeEvaluations(versions, { parts, comparable, known }) {
  if (!known) return 'No manifest of a served model says what it scored. “streamer promote” measures it and writes it there.';
  const names = Object.keys(versions);
  const told = parts.map((part, index) => (part ? `${names[index]}: ${pictures(versions[names[index]].evaluations[part], part)}` : `${names[index]}: not known`));
  if (comparable) return `Both on the same pictures: ${pictures(versions[names[0]].evaluations[parts[0]], parts[0])}. Lines are 95% intervals.`;
  const warning = parts.filter(Boolean).length > 1 ? 'These are different pictures, or nobody knows whether they are the same: do not compare the numbers. ' : '';
  return `${warning}${told.join('; ')}. Lines are 95% intervals.`;
}

function pictures(score, name) {
  const part = score.part ?? name;
  const set = score.set ? ` of set ${score.set.slice(0, 8)}` : '';
  return `part ${part}${set}${score.pictures ? `, ${score.pictures} pictures` : ''}`;
}

/** @param {(object | undefined)[]} scores of each version @returns {Row[]} means over all classes, 0..1 */
export function meanRows(scores) {
  const figures = [['map50', 'mAP50'], ['map50_95', 'mAP50-95'], ['precision', 'Precision'], ['recall', 'Recall']];
  return known(figures.map(([field, name]) => ({ name, cells: scores.map((score) => shareCell(score?.[field], score?.intervals?.[field])) })));
}

/** @returns {Row[]} AP50-95 by size of the objects */
export function sizeRows(scores) {
  return known(SIZES.map((size) => ({ name: size, cells: scores.map((score) => shareCell(score?.by_size?.[size])) })));
}

/** @returns {Row[]} AP50 by class, in the order of the first version that has the class */
export function classRows(scores) {
  const names = [...new Set(scores.flatMap((score) => Object.keys(score?.by_class ?? {})))];
  return known(
    names.map((name) => ({
      name,
      cells: scores.map((score) => {
        const { ap50, objects } = score?.by_class?.[name] ?? {};
        const cell = shareCell(ap50);
        return cell && objects ? { ...cell, note: `${objects} ${objects === 1 ? 'object' : 'objects'}` } : cell;
      }),
    })),
  );
}

/** @returns {Row[]} figures that are no shares: each has a scale of its own */
export function otherRows(scores) {
  const empty = scores.map((score) => {
    const cell = numberCell(score?.false_per_empty_picture, 2, '', score?.intervals?.false_per_empty_picture);
    return cell && score.empty_pictures ? { ...cell, note: `${score.empty_pictures} ${score.empty_pictures === 1 ? 'picture' : 'pictures'}` } : cell;
  });
  const times = scores.map((score) => {
    const cell = numberCell(score?.run_ms, 1, ' ms');
    return cell && score.provider ? { ...cell, note: `on ${score.provider}` } : cell;
  });
  return known([{ name: 'False boxes per empty picture', cells: empty }, { name: 'Time of a run', cells: times }]);
}

/** @returns {Row[]} quantiles of the time from a request to its answer, or of a run of the model */
export function latencyRows(traffic, field) {
  const rows = QUANTILES.map(([quantile, name]) => ({ name, cells: traffic.map((each) => durationCell(each?.latency[field]?.[quantile])) }));
  return known(rows);
}

/** @returns {Row[]} median of each stage of a frame */
export function stageRows(traffic) {
  return known(Object.entries(STAGE_NAMES).map(([stage, name]) => ({ name, cells: traffic.map((each) => durationCell(each?.latency.stages[stage]?.p50)) })));
}

/** @returns {Row[]} what was answered, and what was not, by kind */
export function countRows(traffic) {
  const row = (name, count, total) => ({ name, cells: traffic.map((each) => (each ? countCell(count(each), total?.(each)) : null)) });
  const frames = (each) => each.frames.received;
  const requests = (each) => Object.values(each.errors.requests).reduce((sum, count) => sum + count, each.requests);
  const keys = (pick) => [...new Set(traffic.flatMap((each) => (each ? Object.keys(pick(each)) : [])))];
  return [
    row('Frames answered', ({ frames }) => frames.answered),
    ...keys(({ frames }) => frames.answered_by_transport).map((name) =>
      row(`… ${TRANSPORT_NAMES[name] ?? name}`, ({ frames }) => frames.answered_by_transport[name] ?? 0)),
    row('Requests answered', ({ requests }) => requests),
    row('Frames without a box', ({ boxes }) => boxes.without, ({ boxes }) => boxes.frames),
    row('Frames failed', ({ errors }) => errors.frames_failed, frames),
    ...keys(({ errors }) => errors.frames_dropped).map((reason) =>
      row(`Frames dropped: ${reason}`, ({ errors }) => errors.frames_dropped[reason] ?? 0, frames)),
    ...keys(({ errors }) => errors.requests).map((status) =>
      row(`Requests with status ${status}`, ({ errors }) => errors.requests[status] ?? 0, requests)),
    row('Failures of the model', ({ errors }) => errors.model_failures, frames),
  ];
}

/** @returns {Row[]} mean number of boxes of an answered frame, in all and by class, most frequent classes first */
export function boxRows(traffic) {
  const row = (name, count) => ({
    name,
    cells: traffic.map((each) => {
      if (!each?.boxes.frames) return null;
      const cell = numberCell(count(each.boxes) / each.boxes.frames, 3, '');
      return { ...cell, note: `${count(each.boxes).toLocaleString('en')} ${count(each.boxes) === 1 ? 'box' : 'boxes'}` };
    }),
  });
  const most = (label) => Math.max(...traffic.map((each) => each?.boxes.by_class[label] ?? 0));
  const labels = [...new Set(traffic.flatMap((each) => Object.keys(each?.boxes.by_class ?? {})))].sort((a, b) => most(b) - most(a));
  return known([row('All classes', ({ total }) => total), ...labels.map((label) => row(label, ({ by_class: counts }) => counts[label] ?? 0))]);
}

/** @param {number} seconds @returns {string} such as `2 h 5 min` */
export function durationText(seconds) {
  const minutes = Math.floor(seconds / 60);
  if (minutes < 1) return `${Math.floor(seconds)} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 1) return `${minutes} min`;
  const days = Math.floor(hours / 24);
  return days < 1 ? `${hours} h ${minutes % 60} min` : `${days} d ${hours % 24} h`;
}

/** @param {Row[]} rows @returns {number} a round number that no value of the rows exceeds */
export function scaleOf(rows) {
  const numbers = rows.flatMap(({ cells }) => cells.flatMap((cell) => (cell ? [cell.value, cell.high ?? cell.value] : [])));
  const most = Math.max(...numbers, 0);
  if (most === 0) return 1;
  const unit = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 2.5, 5, 10].map((step) => step * unit).find((end) => end >= most * 0.999);
}

function known(rows) {
  return rows.filter(({ cells }) => cells.some(Boolean));
}

function shareCell(value, interval) {
  return numberCell(value, 3, '', interval);
}

function numberCell(value, digits, unit, interval) {
  if (typeof value !== 'number') return null;
  const [low, high] = interval ?? [null, null];
  const note = interval ? `${low.toFixed(digits)} to ${high.toFixed(digits)}` : '';
  return { value, low, high, text: `${value.toFixed(digits)}${unit}`, note };
}

function durationCell(quantile) {
  if (!quantile) return null;
  const { value_ms: value, low_ms: low, high_ms: high } = quantile;
  if (high === null) return { value, low, high, text: `over ${short(low)} ms`, note: '' };
  return { value, low, high, text: `${short(value)} ms`, note: `${short(low)} to ${short(high)}` };
}

function countCell(value, total = 0) {
  const note = value && total ? `${short((100 * value) / total)}% of all` : '';
  return { value, low: null, high: null, text: value.toLocaleString('en'), note };
}

function short(value) {
  return value >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
}
