// Shows the measurements of the pipeline below the video.

import { milliseconds } from './statistics.js';

/** Number of delays that fill the width of the chart. */
const CHART_VALUES = 120;
/** Number of results over which times of the server are shown, so that they follow changes quickly. */
const SERVER_TIME_VALUES = 30;

const DROP_REASONS = {
  superseded: 'replaced by a newer frame',
  stale: 'too old when its turn came',
  rate: 'above the allowed frame rate',
  decode_error: 'could not be decoded',
  no_keyframe: 'a key frame was missing',
  overload: 'the server is overloaded',
  error: 'the server reported an error',
};

const SKIP_REASONS = {
  window: 'results of earlier frames are pending',
  encoder: 'this device was still encoding',
  unsent: 'the network was still sending',
  rate: 'above the target frame rate',
  hold: 'the stream was on hold',
};

/** Title and explanation of the delay by the origin of capture times. */
const DELAY_TEXTS = {
  camera: ['Camera to box', 'from the camera’s capture to the painted boxes'],
  page: ['Frame to box', 'from the page’s grab of a frame to the painted boxes'],
};

export class StatisticsPanel {
  constructor() {
    const root = document.getElementById('stats');
    /** Elements that show a value, by the name in `data-stat`. */
    this._fields = new Map([...root.querySelectorAll('[data-stat]')].map((field) => [field.dataset.stat, field]));
    this._chart = root.querySelector('canvas');
    this._droppedList = root.querySelector('#dropped-list');
    this._skippedList = root.querySelector('#skipped-list');
    const reasons = root.querySelector('#drops');
    document.addEventListener('click', (event) => {
      if (!reasons.contains(event.target)) reasons.open = false;
    });
  }

  /**
   * @param {object} measurements of the pipeline
   * @param {number} nowMs
   * @param {import('./webrtc-diagnostics.js').NetworkQuality | null} networkQuality null over WebSocket
   */
  update(measurements, nowMs, networkQuality) {
    const { delay, roundTripMs, serverMs, queueMs, inferMs, lastFrame, dropped, skipped } = measurements;
    const finished = dropped.total + measurements.resultCount;
    const [delayTitle, delayOrigin] = DELAY_TEXTS[delay.origin] ?? ['Camera to box', 'no results yet'];
    this._setFields({
      'delay-title': delayTitle,
      'delay-origin': delayOrigin,
      'delay-50': milliseconds(delay.quantile(0.5)),
      'delay-95': milliseconds(delay.quantile(0.95)),
      sent: measurements.sent.perSecond(nowMs).toFixed(1),
      results: measurements.results.perSecond(nowMs).toFixed(1),
      'round-trip-50': milliseconds(roundTripMs.quantile(0.5)),
      'round-trip-95': milliseconds(roundTripMs.quantile(0.95)),
      server: milliseconds(serverMs.quantile(0.5, SERVER_TIME_VALUES)),
      queue: milliseconds(queueMs.quantile(0.5, SERVER_TIME_VALUES)),
      infer: milliseconds(inferMs.quantile(0.5, SERVER_TIME_VALUES)),
      dropped: String(dropped.total),
      'dropped-share': finished ? `${((100 * dropped.total) / finished).toFixed(dropped.total ? 1 : 0)}%` : '–',
      skipped: String(skipped.total),
      'frame-size': lastFrame.width ? `${lastFrame.width}×${lastFrame.height}` : '–',
      ...(networkQuality ? describeVideo(networkQuality) : describeJpeg(lastFrame)),
    });
    showReasons(this._droppedList, dropped.entries, DROP_REASONS);
    showReasons(this._skippedList, skipped.entries, SKIP_REASONS);
    drawChart(this._chart, delay.values);
  }

  _setFields(values) {
    for (const [name, value] of Object.entries(values)) {
      const field = this._fields.get(name);
      if (field.textContent !== value) field.textContent = value;
    }
  }
}

function describeJpeg({ width, quality, bytes }) {
  return {
    encoding: width ? `JPEG ${Math.round(quality * 100)}` : 'JPEG',
    volume: width ? `${Math.round(bytes / 1024)} KiB` : '–',
    network: '',
  };
}

function describeVideo({ codec, kbps, rttMs, lossShare, path }) {
  const loss = lossShare === null ? '–' : `${(100 * lossShare).toFixed(lossShare ? 1 : 0)}%`;
  return {
    encoding: codec || 'video',
    volume: kbps === null ? '–' : `${Math.round(kbps)} kbit/s`,
    network: `${milliseconds(rttMs)} ms · loss ${loss}${path && ` · ${path}`}`,
  };
}

function showReasons(list, entries, texts) {
  const lines = entries.length
    ? entries.map(([reason, count]) => `${count} × ${texts[reason] ?? reason}`)
    : ['None so far'];
  const shown = lines.join('\n');
  if (list.dataset.shown === shown) return;
  list.dataset.shown = shown;
  list.replaceChildren(
    ...lines.map((line) => {
      const item = document.createElement('li');
      item.textContent = line;
      return item;
    }),
  );
}

/**
 * Draw a line chart without axes.
 * @param {HTMLCanvasElement} canvas
 * @param {number[]} values newest last
 */
function drawChart(canvas, values) {
  const ratio = window.devicePixelRatio || 1;
  const width = Math.round(canvas.clientWidth * ratio);
  const height = Math.round(canvas.clientHeight * ratio);
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  const context = canvas.getContext('2d');
  context.clearRect(0, 0, width, height);
  if (values.length < 2) return;
  const maximum = Math.max(...values) * 1.1 || 1;
  const step = width / (CHART_VALUES - 1);
  const left = width - step * (values.length - 1);
  context.beginPath();
  values.forEach((value, index) => {
    context.lineTo(left + index * step, height - ratio - (value / maximum) * (height - 2 * ratio));
  });
  context.strokeStyle = getComputedStyle(canvas).color;
  context.lineWidth = 1.5 * ratio;
  context.lineJoin = 'round';
  context.stroke();
  context.lineTo(width, height);
  context.lineTo(left, height);
  context.globalAlpha = 0.12;
  context.fillStyle = context.strokeStyle;
  context.fill();
  context.globalAlpha = 1;
}
