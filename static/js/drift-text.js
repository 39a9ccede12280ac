// Describes the drift status for people: what has changed, how far each camera is from its reference. Pure.

const MAX_FEATURES = 3;
const MAX_GROUPS = 2;

/** Display names of features. Features that are not listed are shown under their own name. */
const FEATURE_NAMES = {
  dark_frac: 'dark areas',
  bright_frac: 'bright areas',
  colorfulness: 'colourfulness',
  log_sharpness: 'sharpness',
  jpeg_bpp: 'compression',
  aspect: 'aspect ratio',
  log_mpix: 'frame size',
  frame_diff: 'motion',
  n_boxes: 'number of boxes',
  n_low: 'low-confidence boxes',
  no_box: 'frames without boxes',
  conf_mean: 'mean confidence',
  conf_max: 'highest confidence',
  conf_min: 'lowest confidence',
  frac_low: 'share of low-confidence boxes',
  area_med: 'box size',
  area_max: 'largest box',
  log_aspect_med: 'box aspect ratio',
  cx_med: 'horizontal box position',
  cy_med: 'vertical box position',
  edge_frac: 'boxes at the edge',
  n_classes: 'number of classes',
  overlap_max: 'box overlap',
  top_class: 'most confident class',
  classes: 'classes',
};

/** State and text by status of the server. A status that is not listed is not shown. */
const STATUS_TEXTS = {
  ok: ['ok', 'No drift'],
  insufficient_data: ['idle', 'Drift: not enough frames yet'],
  stale_reference: ['idle', 'Drift: the reference belongs to another model'],
  error: ['error', 'Drift: the reference cannot be read'],
};

/**
 * Describe a drift status for the user.
 * @param {{status: string, groups?: Record<string, {status: string, moved: string[], samples: number, cannot_judge?: string | null}>}} status
 * @returns {{state: 'ok' | 'idle' | 'drift' | 'error', text: string} | null} null if there is nothing to show
 */
export function describeDrift(status) {
  if (status.status !== 'drift') {
    const [state, text] = STATUS_TEXTS[status.status] ?? [null, ''];
    const waiting = Object.values(status.groups ?? {}).filter((group) => group.status === status.status);
    const isUnseen = status.status === 'insufficient_data' && waiting.length > 0 && waiting.every((group) => group.cannot_judge);
    if (isUnseen) return { state, text: 'Drift: the reference does not know this time of day' };
    return state === null ? null : { state, text };
  }
  const groups = Object.entries(status.groups ?? {}).filter(([, group]) => group.status === 'drift');
  // Without an administrator's key the server does not list the groups.
  if (groups.length === 0) return { state: 'drift', text: 'Drift detected' };
  const parts = groups.slice(0, MAX_GROUPS).map(([name, group]) => {
    const features = group.moved.slice(0, MAX_FEATURES).map((feature) => FEATURE_NAMES[feature] ?? feature);
    return features.length ? `${name} (${features.join(', ')})` : name;
  });
  if (groups.length > MAX_GROUPS) parts.push(`${groups.length - MAX_GROUPS} more`);
  const samples = groups.reduce((sum, [, group]) => sum + group.samples, 0);
  const saved = samples ? `. ${samples} ${samples === 1 ? 'frame' : 'frames'} saved as training data` : '';
  return { state: 'drift', text: `Drift detected: ${parts.join('; ')}${saved}` };
}

/** Short state by status of the server, for the badge. */
const BADGE_TEXTS = {
  ok: ['ok', 'none'],
  drift: ['drift', 'detected'],
  insufficient_data: ['idle', 'collecting'],
  stale_reference: ['idle', 'another model'],
  no_reference: ['idle', 'no reference'],
  error: ['error', 'error'],
};

/** Number of columns that are shown of a group. */
const MAX_BARS = 4;
/** A bar is full at this multiple of the threshold: from there one window alone begins a drift. */
export const FULL_RATIO = 3;
/** With three days a reference knows how days differ; of shorter histories the server learns what there is. */
const DEFAULT_HOURS = 72;
/** The server accepts no more. */
const MAX_HOURS = 744;

/**
 * @param {string} status of the server
 * @returns {{state: 'ok' | 'idle' | 'drift' | 'error', text: string} | null} null: drift detection is off
 */
export function driftBadge(status) {
  const [state, text] = BADGE_TEXTS[status] ?? [null, ''];
  return state === null ? null : { state, text };
}

/**
 * Return the columns of a group that are furthest from the reference.
 * @param {{columns?: {name: string, ratio: number | null}[]}} group
 * @returns {{name: string, ratio: number, text: string}[]} largest ratio of score to threshold first
 */
export function driftBars({ columns = [] }) {
  return columns
    .filter(({ ratio }) => ratio !== null)
    .sort((a, b) => b.ratio - a.ratio)
    .slice(0, MAX_BARS)
    .map(({ name, ratio, basis }) => ({
      name: FEATURE_NAMES[name] ?? name,
      ratio,
      text: `${Math.round(100 * ratio)}% of the threshold${describeBasis(basis)}`,
    }));
}

/** @param {string | undefined} basis of a ratio: `window`, `step`, or the length of a mean, such as `2 h` */
function describeBasis(basis) {
  if (!basis || basis === 'window') return '';
  return basis === 'step' ? ', a sudden change' : `, mean of the last ${basis}`;
}

/**
 * Describe a reference that grows by itself.
 * @param {{days: number, most_days: number, skipped: {date: string, reason: string}[], waiting: string | null} | undefined} rolling
 * @returns {string} empty if the reference does not grow
 */
export function describeRolling(rolling) {
  if (!rolling) return '';
  const last = rolling.skipped.at(-1);
  const parts = [`Reference of ${rolling.days} of ${rolling.most_days} days`];
  if (last) parts.push(`${last.date} was not added: ${last.reason.replace(/^\w+/, (word) => FEATURE_NAMES[word] ?? word)}`);
  if (rolling.waiting) parts.push(rolling.waiting.replace(/\.$/, ''));
  return `${parts.join('. ')}.`;
}

/**
 * Describe the state of one group in a few words.
 * @param {{status: string, since: string | null, severity: string | null, kind?: string | null, changed_at?: string | null,
 *     recurring?: boolean, cannot_judge?: string | null}} group
 * @param {(time: Date) => string} formatTime
 */
export function describeGroup(group, formatTime) {
  const { status, severity, kind, cannot_judge: gap } = group;
  const { text } = driftBadge(status) ?? { text: status };
  if (status !== 'drift') {
    if (gap) return gap;
    if (group.recurring) return 'no drift: a change that recurs every day';
    return text === 'none' ? 'no drift' : text;
  }
  const begin = group.changed_at ?? group.since;
  const words = [severity ?? 'drift', ...(kind ? [kind] : []), ...(begin ? [`since ${formatTime(new Date(begin))}`] : [])];
  return words.join(', ');
}

/**
 * Return how many of the last hours to learn as normal: those since the drift began, else three days.
 * @param {{groups?: Record<string, {since: string | null}>, since?: string | null}} status
 * @param {string} name of the group; `*`: all
 * @param {number} nowMs Unix time
 */
export function suggestedHours(status, name, nowMs) {
  const since = name === '*' ? status.since : status.groups?.[name]?.since;
  if (!since) return DEFAULT_HOURS;
  return Math.min(MAX_HOURS, Math.max(0.5, Math.ceil((nowMs - Date.parse(since)) / 360000) / 10));
}

/**
 * Describe what the server has learned, or would learn.
 * @param {{dry_run: boolean, groups: Record<string, object>, skipped: Record<string, string>}} update answer of the server
 * @returns {string}
 */
export function describeUpdate({ groups, skipped }) {
  const learned = Object.entries(groups).map(([name, { rows, span_h: hours, calibrated, ratio_after: ratio }]) => {
    const present = ratio === null ? '' : `; now at ${Math.round(100 * ratio)}% of its threshold`;
    return `${name}: ${rows} rows of ${hours.toFixed(1)} h${present}${calibrated ? '' : '; thresholds are not calibrated'}`;
  });
  const others = Object.entries(skipped).map(([name, why]) => `${name} is left out: ${why}`);
  return [...learned, ...others].join('. ').concat('.');
}
