// Photos: which files count, the address, the commands that repeat the analysis, and the description of the answer.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { MODEL_DEFAULTS } from '../../../static/js/detection-parameters.js';
import { sortFiles } from '../../../static/js/file-intake.js';
import { shortText, textsOf } from '../../../static/js/code-text.js';
import { analysePhoto, describeAnswer, isImage, sceneOf } from '../../../static/js/photo-analysis.js';
import { PhotoCollection } from '../../../static/js/photo-collection.js';
import { curlCommand, predictUrl, pythonProgram } from '../../../static/js/photo-commands.js';

const ANSWER = {
  image: { width: 810, height: 1080 },
  detections: [
    { box: [1, 2, 3, 4], score: 0.9, class_id: 5, label: 'bus' },
    { box: [5, 6, 7, 8], score: 0.8, class_id: 0, label: 'person' },
    { box: [6, 6, 7, 8], score: 0.7, class_id: 0, label: 'person' },
  ],
  timings_ms: { total: 19.4 },
};

test('images are known by their type, or by their name where the browser knows no type', () => {
  assert.ok(isImage({ type: 'image/png', name: 'a' }));
  assert.ok(isImage({ type: '', name: 'IMG_1.HEIC' }));
  assert.ok(!isImage({ type: 'video/mp4', name: 'a.png' }));
  assert.ok(!isImage({ type: '', name: 'a.mkv' }));
});

test('photos go before a video, and a pasted image has a name', () => {
  const photo = { type: 'image/jpeg', name: '' };
  const video = { type: 'video/mp4', name: 'a.mp4' };
  const sorted = sortFiles([video, photo, photo], true);
  assert.equal(sorted.video, null);
  assert.deepEqual(sorted.photos[1], { file: photo, name: 'image.png', isPasted: true });
  assert.deepEqual(sortFiles([video], false), { photos: [], video });
  assert.deepEqual(sortFiles([], false), { photos: [], video: null });
});

test('the address is relative to the page, also below a prefix, and carries only what was set', () => {
  const all = { version: 'v2', ...MODEL_DEFAULTS, keep: true };
  assert.equal(predictUrl('https://example.test/vision/?source=sample#x', all, []), 'https://example.test/vision/v2/predict');
  const some = { version: 'v1', threshold: 0.4, iouThreshold: 0.6, agnosticNms: true, maxDetections: 20, keep: false };
  assert.equal(
    predictUrl('http://127.0.0.1:8000/', some, ['person', 'traffic light']),
    'http://127.0.0.1:8000/v1/predict?conf_threshold=0.4&iou_threshold=0.6&agnostic_nms=1&max_detections=20' +
      '&classes=person&classes=traffic+light&collect=0',
  );
  assert.match(predictUrl('http://127.0.0.1:8000/', { ...all, agnosticNms: false }, []), /predict\?agnostic_nms=0$/);
});

test('commands name the file safely and have a placeholder where a key is required', () => {
  const request = { url: 'http://h/v1/predict', fileName: "it's $HOME.jpg", mediaType: 'image/jpeg', needsKey: false };
  const quote = "'";
  assert.ok(curlCommand(request).includes(`--data-binary ${quote}@it${quote}\\${quote}${quote}s $HOME.jpg${quote}`));
  assert.ok(!curlCommand(request).includes('Authorization'));
  assert.ok(pythonProgram(request).includes('open("it\'s $HOME.jpg", "rb")'));
  for (const text of [curlCommand, pythonProgram].map((write) => write({ ...request, needsKey: true }))) {
    assert.match(text, /Bearer YOUR_API_KEY/);
    assert.ok(text.includes('http://h/v1/predict'));
  }
  assert.match(pythonProgram({ ...request, mediaType: '' }), /application\/octet-stream/);
});

test('an answer is described in one line and drawn like the result of a stream', () => {
  assert.equal(describeAnswer(ANSWER), '810×1080 · 3 objects: 2 person, 1 bus · 19 ms');
  assert.equal(describeAnswer({ ...ANSWER, detections: [] }), '810×1080 · no objects · 19 ms');
  const { boxes, frame, labels } = sceneOf(ANSWER);
  assert.deepEqual(boxes[0], [1, 2, 3, 4, 0.9, 5]);
  assert.deepEqual(frame, { width: 810, height: 1080 });
  assert.equal(labels[5], 'bus');
  const read = { ...ANSWER, detections: [{ ...ANSWER.detections[0], text: '5527-1904' }] };
  assert.deepEqual([...sceneOf(read).texts.values()], ['5527-1904']);
});

test('texts of codes belong to their boxes, and a label shows a short form', () => {
  const boxes = [[1, 1, 2, 2, 0.9, 0], [3, 3, 4, 4, 0.8, 0]];
  assert.equal(textsOf({ boxes }).size, 0);
  assert.deepEqual([...textsOf({ boxes, text: [null, 'a'] })], [[boxes[1], 'a']]);
  assert.equal(shortText(' WIFI:S:x;\n\u0000\u202eP:y;; '), 'WIFI:S:x; P:y;;');
  assert.equal(shortText('x'.repeat(40)), 'x'.repeat(40));
  assert.equal(shortText('😀'.repeat(5000)), `${'😀'.repeat(39)}…`);
});

/** Answer requests with the given statuses and bodies, and note what was sent. */
function withServer(replies, sent = []) {
  globalThis.fetch = async (url, options) => {
    sent.push({ url, headers: options.headers });
    const { status, body, retryAfter = '0.001' } = replies.length > 1 ? replies.shift() : replies[0];
    return {
      ok: status < 400,
      status,
      json: async () => body,
      headers: { get: () => retryAfter },
    };
  };
  return sent;
}

test('a busy server is asked again, and any other refusal is shown with its reason', async () => {
  const { signal } = new AbortController();
  const file = { type: 'image/png' };
  const sent = withServer([{ status: 503, body: {} }, { status: 429, body: {} }, { status: 200, body: ANSWER }]);
  assert.equal((await analysePhoto(file, 'u', 'secret', signal)).answer, ANSWER);
  assert.equal(sent.length, 3);
  assert.deepEqual(sent[0].headers, { Authorization: 'Bearer secret', 'Content-Type': 'image/png' });
  withServer([{ status: 415, body: { detail: 'HEIC is not accepted.' } }]);
  assert.deepEqual(await analysePhoto(file, 'u', '', signal), { answer: null, error: 'HEIC is not accepted.', needsKey: false });
  withServer([{ status: 401, body: { detail: 'A key, please.' } }]);
  assert.equal((await analysePhoto(file, 'u', '', signal)).needsKey, true);
  withServer([{ status: 503, body: { detail: 'Saturated.' } }]);
  assert.equal((await analysePhoto(file, 'u', '', signal)).error, 'Saturated.');
});

test('photos are analysed one after the other, and again with the settings of that time', async () => {
  const sent = withServer([{ status: 200, body: ANSWER }]);
  let url = 'first';
  const collection = new PhotoCollection({ url: () => url, key: () => '', onChange: () => {} });
  const finished = async () => {
    while (collection.pending) await new Promise((resolve) => setTimeout(resolve, 1));
  };
  const photo = (name) => ({ file: { type: 'image/png' }, name, isPasted: false });
  assert.equal(collection.add([photo('a'), photo('b')]).length, 2);
  assert.deepEqual(collection.photos.map(({ state }) => state), ['running', 'waiting']);
  await finished();
  url = 'second';
  collection.repeat();
  await finished();
  assert.deepEqual(sent.map((request) => request.url), ['first', 'first', 'second', 'second']);
  assert.deepEqual(collection.photos.map((entry) => entry.url), ['second', 'second']);
  assert.equal(collection.add(Array.from({ length: 200 }, (_, n) => photo(String(n)))).length, 98);
  collection.clear();
  assert.equal(collection.pending, 0);
});
