// Shows the objects per class of the last ten minutes as a graph with a legend, and saves them as CSV.

import { ClassCounts, INTERVALS } from './class-counts.js';
import { saveFile, timestamp } from './download.js';
import { classColour, classDash } from './palette.js';

/** How many classes the graph and its legend show. The CSV file has all. */
const MAX_CLASSES = 6;
const UPDATE_MS = 1000;

export class CountsPanel {
  constructor() {
    this._root = document.getElementById('counts');
    this._canvas = this._root.querySelector('canvas');
    this._maximum = document.getElementById('counts-maximum');
    this._legend = document.getElementById('counts-legend');
    this._hint = document.getElementById('counts-hint');
    this._button = document.getElementById('counts-csv');
    this._counts = new ClassCounts();
    this._updatedMs = -Infinity;
    this._button.addEventListener('click', () => this._save());
    this._root.addEventListener('toggle', () => this.update(Infinity));
  }

  /** From now on, equal track ids are other objects. */
  startSession() {
    this._counts.startSession();
  }

  /** Count a result. @param {number[][]} rows of the result @param {string[]} labels of the model */
  add(rows, labels) {
    this._counts.add(rows, labels, Date.now());
  }

  /** Show the counts, at most once per second, and only while the panel is open. @param {number} nowMs */
  update(nowMs) {
    if (!this._root.open || nowMs - this._updatedMs < UPDATE_MS) return;
    this._updatedMs = Number.isFinite(nowMs) ? nowMs : -Infinity;
    const all = this._counts.series(Date.now());
    const series = all.slice(0, MAX_CLASSES);
    this._button.disabled = all.length === 0;
    this._hint.textContent = describeKind(series, all.length);
    this._legend.replaceChildren(...series.map(createEntry));
    const maximum = drawGraph(this._canvas, series);
    this._maximum.textContent = series.length ? formatCount(maximum) : '';
    const summary = series.map(({ label, total }) => `${label} ${formatCount(total)}`).join(', ');
    this._canvas.setAttribute('aria-label', `Objects in the last ten minutes: ${summary || 'none'}`);
  }

  _save() {
    const csv = new Blob([this._counts.toCsv(Date.now())], { type: 'text/csv' });
    saveFile(csv, `counts-${timestamp()}.csv`);
  }
}

function describeKind(series, classes) {
  if (!series.length) return 'No objects yet.';
  const tracks = series.some(({ kind }) => kind === 'tracks');
  const text = tracks
    ? 'Distinct tracked objects, every ten seconds. '
    : 'Mean number of boxes per frame, every ten seconds. With tracking on, distinct objects are counted. ';
  return classes > series.length ? `${text}The CSV file has all ${classes} classes.` : text.trim();
}

function formatCount(count) {
  return Number.isInteger(count) ? String(count) : count.toFixed(count < 10 ? 1 : 0);
}

function createEntry({ label, classId, total }) {
  const entry = document.createElement('li');
  entry.style.setProperty('--class-colour', classColour(classId));
  const dot = document.createElement('span');
  dot.className = 'dot';
  const count = document.createElement('b');
  count.textContent = formatCount(total);
  entry.append(dot, document.createTextNode(label), count);
  return entry;
}

/**
 * Draw one stepped line per class.
 * @param {HTMLCanvasElement} canvas
 * @param {import('./class-counts.js').Series[]} series
 * @returns {number} the count at the upper edge
 */
function drawGraph(canvas, series) {
  const ratio = window.devicePixelRatio || 1;
  const width = (canvas.width = Math.round(canvas.clientWidth * ratio));
  const height = (canvas.height = Math.round(canvas.clientHeight * ratio));
  const context = canvas.getContext('2d');
  const maximum = Math.max(1, ...series.flatMap(({ values }) => values));
  const margin = 4 * ratio;
  const step = width / INTERVALS;
  context.lineWidth = 2 * ratio;
  context.lineJoin = 'round';
  // The most frequent class is drawn last, on top.
  for (const { classId, values } of [...series].reverse()) {
    context.strokeStyle = classColour(classId);
    context.setLineDash(classDash(classId).map((length) => length * ratio));
    context.beginPath();
    let isConnected = false;
    values.forEach((value, index) => {
      if (value === null) {
        isConnected = false;
        return;
      }
      const y = height - margin - (value / maximum) * (height - 2 * margin);
      if (isConnected) context.lineTo(index * step, y);
      else context.moveTo(index * step, y);
      context.lineTo((index + 1) * step, y);
      isConnected = true;
    });
    context.stroke();
  }
  return maximum;
}
