// Sends a photo to the server and describes the answer or the error.

import { authorizationHeaders } from './authentication.js';
import { textsOf } from './code-text.js';

const ATTEMPTS = 4;
const MAX_WAIT_S = 10;
/** Statuses after which the server asks for another attempt later. */
const BUSY = new Set([429, 503]);

/** Extensions of images for which some browsers know no media type. */
const IMAGE_EXTENSION = /\.(jpe?g|png|webp|heic|heif|avif|gif|bmp|tiff?)$/i;

/**
 * @typedef {object} PhotoOutcome
 * @property {object | null} answer JSON of the server; null: the photo could not be analysed
 * @property {string} error why not; empty if there is an answer
 * @property {boolean} needsKey whether the server rejected the API key, or requires one
 */

/** @param {{type: string, name: string}} file @returns {boolean} */
export function isImage({ type, name }) {
  return type.startsWith('image/') || (!type && IMAGE_EXTENSION.test(name));
}

/**
 * Analyse a photo. Waits and tries again while the server is busy.
 * @param {Blob} file
 * @param {string} url see `predictUrl`
 * @param {string} key API key; empty: none
 * @param {AbortSignal} signal
 * @returns {Promise<PhotoOutcome>}
 * @throws {DOMException} AbortError, and nothing else
 */
export async function analysePhoto(file, url, key, signal) {
  for (let attempt = 1; ; attempt++) {
    let response;
    try {
      response = await fetch(url, {
        method: 'POST',
        body: file,
        headers: { ...authorizationHeaders(key), 'Content-Type': file.type || 'application/octet-stream' },
        signal,
      });
    } catch (error) {
      if (error.name === 'AbortError') throw error;
      return failure('The server does not respond.');
    }
    const body = await response.json().catch(() => null);
    signal.throwIfAborted?.();
    if (response.ok && body) return { answer: body, error: '', needsKey: false };
    if (!BUSY.has(response.status) || attempt === ATTEMPTS) {
      return failure(body?.detail ?? `The server returned status ${response.status}.`, response.status === 401);
    }
    await delay(Math.min(MAX_WAIT_S, Number(response.headers.get('Retry-After')) || 1) * 1000);
    signal.throwIfAborted?.();
  }
}

/**
 * Describe an answer in one line, such as `810×1080 · 5 objects: 4 person, 1 bus · 143 ms`.
 * @param {{image: {width: number, height: number}, detections: {label: string}[], timings_ms: {total: number}}} answer
 * @returns {string}
 */
export function describeAnswer({ image, detections, timings_ms: timings }) {
  const counts = new Map();
  for (const { label } of detections) counts.set(label, (counts.get(label) ?? 0) + 1);
  const classes = [...counts].sort((a, b) => b[1] - a[1]).map(([label, count]) => `${count} ${label}`);
  const total = detections.length;
  const objects = total ? `${total} ${total === 1 ? 'object' : 'objects'}: ${classes.join(', ')}` : 'no objects';
  return `${image.width}×${image.height} · ${objects} · ${Math.round(timings.total)} ms`;
}

/**
 * Convert an answer to what is drawn.
 * @param {object} answer
 * @returns {{boxes: number[][], frame: {width: number, height: number}, labels: string[], texts: Map<number[], string>}}
 *   `boxes`: as in the results of a stream; `labels`: by class id, with gaps; `texts`: of codes, by row of `boxes`
 */
export function sceneOf({ image, detections }) {
  const labels = [];
  for (const { class_id: id, label } of detections) labels[id] = label;
  const boxes = detections.map(({ box, score, class_id: id }) => [...box, score, id]);
  const texts = textsOf({ boxes, text: detections.map(({ text }) => text ?? null) });
  return { boxes, frame: { width: image.width, height: image.height }, labels, texts };
}

function failure(error, needsKey = false) {
  return { answer: null, error, needsKey };
}

function delay(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
