// Writes the pipeline's measurements into the page, four times a second at most.

import { DROP_REASONS, SKIP_REASONS } from './problems.js';
import { drawSparkline } from './sparkline.js';

const SPARK_VALUES = 120;

export class StatisticsPanel {
  /** @param {HTMLElement} root holds elements with data-stat */
  constructor(root) {
    this._root = root;
    this._fields = new Map([...root.querySelectorAll('[data-stat]')].map((field) => [field.dataset.stat, field]));
    this._spark = root.querySelector('canvas');
    const reasons = root.querySelector('details');
    document.addEventListener('click', (event) => {
      if (!reasons.contains(event.target)) reasons.open = false;
    });
    this._lists = { dropped: root.querySelector('#dropped-list'), skipped: root.querySelector('#skipped-list') };
  }

  /**
   * @param {object} measured of the pipeline
   * @param {number} nowMs
   * @param {import('./line-quality.js').LineQuality | null} line null where frames go as JPEG
   */
  update(measured, nowMs, line) {
    const { roundTripMs, serverMs, queueMs, inferMs, encodeMs, frame, dropped, skipped } = measured;
    const taken = dropped.total + measured.resultCount;
    this._write({
      sent: measured.sent.perSecond(nowMs).toFixed(1),
      results: measured.results.perSecond(nowMs).toFixed(1),
      'round-trip-50': milliseconds(roundTripMs.quantile(0.5)),
      'round-trip-95': milliseconds(roundTripMs.quantile(0.95)),
      server: milliseconds(serverMs.quantile(0.5, 30)),
      queue: milliseconds(queueMs.quantile(0.5, 30)),
      infer: milliseconds(inferMs.quantile(0.5, 30)),
      dropped: String(dropped.total),
      'dropped-share': taken ? `${((100 * dropped.total) / taken).toFixed(dropped.total ? 1 : 0)}%` : '–',
      skipped: String(skipped.total),
      size: frame.width ? `${frame.width}×${frame.height}` : '–',
      ...(line ? asVideo(line) : asJpeg(frame)),
      encode: milliseconds(encodeMs.quantile(0.5)),
    });
    list(this._lists.dropped, dropped.entries, DROP_REASONS, 'None so far');
    list(this._lists.skipped, skipped.entries, SKIP_REASONS, 'None so far');
    drawSparkline(this._spark, roundTripMs.values, SPARK_VALUES);
  }

  _write(values) {
    for (const [name, value] of Object.entries(values)) {
      const field = this._fields.get(name);
      if (field && field.textContent !== value) field.textContent = value;
    }
  }
}

function asJpeg(frame) {
  return {
    quality: frame.width ? `JPEG ${Math.round(frame.quality * 100)}` : 'JPEG',
    weight: frame.width ? `${Math.round(frame.bytes / 1024)} KiB` : '–',
    line: '',
  };
}

function asVideo({ codec, kbps, rttMs, lossShare, path }) {
  const loss = lossShare === null ? '–' : `${(100 * lossShare).toFixed(lossShare ? 1 : 0)}%`;
  return {
    quality: codec || 'video',
    weight: kbps === null ? '–' : `${Math.round(kbps)} kbit/s`,
    line: `${milliseconds(rttMs)} ms · loss ${loss}${path && ` · ${path}`}`,
  };
}

function milliseconds(value) {
  if (value === null || value === undefined) return '–';
  return value < 10 ? value.toFixed(1) : String(Math.round(value));
}

function list(root, entries, texts, nothing) {
  const lines = entries.length
    ? entries.map(([reason, count]) => `${count} × ${texts[reason] ?? reason}`)
    : [nothing];
  if (root.dataset.shown === lines.join('\n')) return;
  root.dataset.shown = lines.join('\n');
  root.replaceChildren(
    ...lines.map((line) => {
      const item = document.createElement('li');
      item.textContent = line;
      return item;
    }),
  );
}
