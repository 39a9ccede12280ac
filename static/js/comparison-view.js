// Shows the comparison of two versions: verdict, differences with their intervals, a chart over time, pictures.

import { authorizationHeaders } from './authentication.js';
import { countedText, differenceRows, linePoints, percent, quantityRows, reachOf, verdictName } from './comparison-text.js';
import { time } from './versions-model.js';
import { addRoles, element, header } from './versions-table.js';
import { scaleOf } from './versions-text.js';

const SVG = 'http://www.w3.org/2000/svg';
const MOST_CLASSES = 12;
const CHART = { width: 640, height: 120 };

/** @param {object} comparison field of the answer of GET /versions @returns {HTMLElement[]} */
export function buildVerdict({ verdict, text, remarks, labelled, counted, ...others }) {
  const banner = element('p', 'verdict');
  banner.dataset.verdict = verdict;
  const [head, rest = ''] = text.split(/(?<=:) (.*)/s);
  banner.append(element('strong', '', head), rest ? ` ${rest}` : '');
  const parts = [banner, element('p', 'note', countedText({ counted, ...others }))];
  if (counted.windows < counted.windows_needed && counted.frames) {
    const progress = element('progress', 'windows');
    progress.max = counted.windows_needed;
    progress.value = counted.windows;
    progress.setAttribute('aria-label', 'Windows until a verdict is possible');
    parts.push(progress);
  }
  if (remarks.length) {
    const list = element('ul', 'remarks');
    list.append(...remarks.map((remark) => element('li', '', remark)));
    parts.push(list);
  }
  if (labelled) {
    const line = element('p', 'labelled');
    line.append(element('strong', '', `Labelled pictures: ${labelled.verdict}. `), labelled.text);
    parts.push(line);
  }
  return parts;
}

/** @param {object} comparison @returns {HTMLElement[]} tables and charts; none without frames */
export function buildDifferences(comparison) {
  if (!comparison.counted.frames) return [];
  const boxes = comparison.both + comparison.only_first + comparison.only_second;
  const parts = boxes ? [shares(comparison)] : [];
  const quantities = quantityRows(comparison);
  if (quantities.length) parts.push(table(`${comparison.second} against ${comparison.first}`, quantities));
  const classes = differenceRows(comparison);
  if (classes.length) {
    const whole = element('div');
    whole.append(table('Number of boxes by class', classes.slice(0, MOST_CLASSES), reachOf(classes)));
    if (classes.length > MOST_CLASSES) {
      const rest = element('details', 'more');
      const more = table('Number of boxes by class, continued', classes.slice(MOST_CLASSES), reachOf(classes));
      rest.append(element('summary', '', `${classes.length - MOST_CLASSES} more`), more);
      whole.append(rest);
    }
    parts.push(whole);
  }
  if (boxes && comparison.history.length > 1) parts.push(...charts(comparison));
  return parts;
}

function shares({ first, second, both, only_first: onlyFirst, only_second: onlySecond }) {
  const whole = element('div');
  const total = both + onlyFirst + onlySecond;
  const caption = element('h3', 'caption', 'Who finds the boxes');
  const bar = element('div', 'shares');
  bar.setAttribute('aria-hidden', 'true');
  const legend = element('ul', 'shares-legend');
  for (const [kind, name, count] of [['first', `only ${first}`, onlyFirst], ['both', 'both', both], ['second', `only ${second}`, onlySecond]]) {
    const share = total ? count / total : 0;
    const part = element('span', `part ${kind}`);
    part.style.setProperty('--share', share);
    bar.append(part);
    const line = element('li', kind);
    const shown = share > 0 && share < 0.1 ? (100 * share).toFixed(1) : (100 * share).toFixed(0);
    line.append(element('span', 'swatch'), `${name} `, element('b', '', `${shown}%`), ` ${count.toLocaleString('en')}`);
    legend.append(line);
  }
  whole.append(caption, bar, legend);
  return whole;
}

/** @param {import('./comparison-text.js').Difference[]} rows @param {number} [reach] of all charts; else each has its own */
function table(caption, rows, reach) {
  const made = element('table', 'plot differences');
  made.style.setProperty('--versions', 1);
  made.append(element('caption', '', caption));
  const head = made.createTHead().insertRow();
  head.append(header('col', '', element('span', 'visually-hidden', 'Quantity')));
  head.append(header('col', 'axis', element('span', 'visually-hidden', 'Chart')), header('col', 'number', 'Difference'));
  const body = made.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    line.dataset.verdict = row.judged ? row.verdict : 'shown';
    const name = header('row', '', row.name);
    if (row.judged) name.append(element('small', 'state', verdictName(row.verdict)));
    line.append(name);
    const graph = line.insertCell();
    graph.className = 'graph';
    graph.append(interval(row, reach ?? reachOf([row])));
    const number = line.insertCell();
    number.className = 'number';
    number.append(row.text, element('small', '', row.note));
  }
  addRoles(made);
  return made;
}

function interval({ value, interval: bounds, always, margin }, reach) {
  const track = element('div', 'interval');
  track.setAttribute('aria-hidden', 'true');
  const place = (number) => `${Math.min(100, Math.max(0, 50 + (50 * number) / reach))}%`;
  const span = (name, low, high) => {
    const part = element('span', name);
    part.style.setProperty('--low', place(low));
    part.style.setProperty('--high', place(high));
    track.append(part);
  };
  span('margin', -margin, margin);
  track.append(element('span', 'zero'));
  if (always.some((each) => each !== null)) span('always', always[0] ?? -reach, always[1] ?? reach);
  if (bounds) span('range', bounds[0], bounds[1]);
  if (value !== null) {
    const mark = element('span', 'mark');
    mark.style.setProperty('--at', place(value));
    track.append(mark);
  }
  return track;
}

function charts({ first, second, history }) {
  const most = scaleOf([{ cells: history.flatMap((each) => [each.first, each.second]).map((value) => ({ value, high: value })) }]);
  const lines = [['first', (each) => each.first], ['second', (each) => each.second]];
  const boxes = chart(`Boxes per frame: ${first} and ${second}`, history, lines, most, String(most));
  const agreement = chart('Agreement', history, [['both', (each) => each.agreement]], 1, '100%');
  return [boxes, agreement];
}

function chart(caption, history, lines, most, top) {
  const whole = element('figure', 'over-time');
  const title = element('figcaption', 'caption', caption);
  const drawing = document.createElementNS(SVG, 'svg');
  drawing.setAttribute('viewBox', `0 0 ${CHART.width} ${CHART.height}`);
  drawing.setAttribute('preserveAspectRatio', 'none');
  drawing.setAttribute('role', 'img');
  const last = history[history.length - 1];
  const values = lines.map(([, pick]) => pick(last)).filter((value) => value !== undefined);
  drawing.setAttribute('aria-label', `${caption}, over ${history.length} periods; the last: ${values.join(' and ')}`);
  for (const [kind, pick] of lines) {
    const line = document.createElementNS(SVG, 'polyline');
    line.setAttribute('class', kind);
    line.setAttribute('points', linePoints(history, pick, most, CHART.width, CHART.height));
    drawing.append(line);
  }
  const scale = element('div', 'scale');
  scale.setAttribute('aria-hidden', 'true');
  scale.append(element('span', '', top), element('span', '', '0'));
  const body = element('div', 'plot-area');
  body.append(scale, drawing);
  const times = element('div', 'times');
  times.append(time(history[0].at), time(last.at));
  whole.append(title, body, times);
  return whole;
}

/** Shows the frames on which the versions differ most, as pairs. */
export class PicturePairs {
  /** @param {HTMLElement} target */
  constructor(target) {
    this._target = target;
    this._urls = new Map();
  }

  /**
   * @param {object[]} pictures @param {string[]} versions @param {string} key API key; empty: none
   * @returns {Promise<void>} once all pictures are there
   */
  async show(pictures, versions, key) {
    const wanted = new Set(pictures.map(({ url }) => url));
    for (const [url, object] of this._urls) {
      if (wanted.has(url)) continue;
      URL.revokeObjectURL(object);
      this._urls.delete(url);
    }
    const pairs = await Promise.all(pictures.map((picture) => this._pair(picture, versions, key)));
    const shown = pairs.filter(Boolean);
    // A gateway may keep pictures from clients outside.
    this._target.parentElement.hidden = shown.length === 0;
    this._target.replaceChildren(...shown);
  }

  async _pair(picture, versions, key) {
    const source = await this._load(picture.url, key);
    if (!source) return null;
    const pair = element('figure', 'pair');
    const title = element('figcaption', 'caption');
    title.append(`${(100 * picture.disagreement).toFixed(0)}% disagreement, `, time(picture.at));
    const both = element('div', 'both');
    versions.forEach((version, index) => both.append(side(source, picture, version, index)));
    pair.append(title, both);
    return pair;
  }

  async _load(url, key) {
    if (!this._urls.has(url)) {
      try {
        const response = await fetch(url, { headers: authorizationHeaders(key), cache: 'no-store' });
        if (!response.ok) return null;
        this._urls.set(url, URL.createObjectURL(await response.blob()));
      } catch {
        return null; // the next poll tries again
      }
    }
    return this._urls.get(url);
  }
}

function side(source, { width, height, rotation, boxes }, version, index) {
  const found = boxes[version] ?? [];
  const whole = element('div', `side ${index ? 'second' : 'first'}`);
  const frame = element('div', 'frame');
  frame.style.setProperty('aspect-ratio', `${width} / ${height}`);
  const image = element('img');
  image.src = source;
  image.alt = `The frame with the ${found.length} boxes of ${version}`;
  image.dataset.turns = rotation;
  image.style.setProperty('--ratio', width / height);
  const drawing = document.createElementNS(SVG, 'svg');
  drawing.setAttribute('viewBox', `0 0 ${width} ${height}`);
  drawing.setAttribute('aria-hidden', 'true');
  for (const { box: [left, top, right, bottom], label, score } of found) {
    const area = document.createElementNS(SVG, 'rect');
    area.setAttribute('x', left);
    area.setAttribute('y', top);
    area.setAttribute('width', Math.max(0, right - left));
    area.setAttribute('height', Math.max(0, bottom - top));
    const name = document.createElementNS(SVG, 'title');
    name.textContent = `${label} ${percent(score).slice(1)}`;
    area.append(name);
    drawing.append(area);
  }
  frame.append(image, drawing);
  const tag = element('p', 'tag');
  tag.append(element('span', 'shape'), `${version}: ${found.length ? summary(found) : 'nothing'}`);
  whole.append(frame, tag);
  return whole;
}

function summary(found) {
  const counts = new Map();
  for (const { label } of found) counts.set(label, (counts.get(label) ?? 0) + 1);
  return [...counts].map(([label, count]) => (count > 1 ? `${count} × ${label}` : label)).join(', ');
}
