import assert from 'node:assert/strict';
import { test } from 'node:test';

import {
  boxRows, chooseEvaluations, classRows, countRows, describeEvaluations, durationText, latencyRows, meanRows, otherRows, scaleOf,
} from '../../../static/js/versions-text.js';

import {
  countedText, differenceRows, linePoints, percent, quantityRows, reachOf,
} from '../../../static/js/comparison-text.js';

const score = (changes = {}) => ({ set: 'ab'.repeat(32), part: 'test', pictures: 24, map50: 0.8, ...changes });
const traffic = (changes = {}) => ({
  requests: 3,
  frames: { received: 9, answered: 7, answered_by_transport: { http: 3, websocket: 4 }, in_flight: 0 },
  errors: { frames_failed: 0, frames_dropped: { stale: 2 }, requests: {}, model_failures: 0 },
  boxes: { total: 0, frames: 0, without: 0, by_class: {} },
  latency: { stages: {} },
  ...changes,
});

test('evaluations on the same pictures are put side by side, whatever their names', () => {
  const versions = { v1: { evaluations: { val: score({ part: 'val' }), test: score() } }, v2: { evaluations: { promotion: score({ map50: 0.9 }) } } };
  const choice = chooseEvaluations(versions);
  assert.deepEqual(choice, { parts: ['test', 'promotion'], comparable: true, known: true });
  assert.equal(describeEvaluations(versions, choice), 'Both on the same pictures: part test of set abababab, 24 pictures. Lines are 95% intervals.');
});

test('evaluations on other pictures are shown with a warning', () => {
  const versions = { v1: { evaluations: { test: score() } }, v2: { evaluations: { promotion: score({ pictures: 25 }) } } };
  const choice = chooseEvaluations(versions);
  assert.deepEqual(choice, { parts: ['test', 'promotion'], comparable: false, known: true });
  assert.match(describeEvaluations(versions, choice), /do not compare the numbers/);
});

test('pictures of unknown sets are never the same', () => {
  const unknown = { v1: { evaluations: { val: { map50: 1 } } }, v2: { evaluations: { val: { map50: 1 } } } };
  assert.equal(chooseEvaluations(unknown).comparable, false);
});

test('a version without scores has no numbers, and none at all is said', () => {
  const choice = chooseEvaluations({ v1: {}, v2: { evaluations: { val: score({ part: 'val' }) } } });
  assert.deepEqual(choice, { parts: [null, 'val'], comparable: false, known: true });
  const rows = meanRows([undefined, score({ intervals: { map50: [0.7, 0.85] } })]);
  assert.deepEqual(rows, [{ name: 'mAP50', cells: [null, { value: 0.8, low: 0.7, high: 0.85, text: '0.800', note: '0.700 to 0.850' }] }]);
  const none = { v1: {}, v2: {} };
  assert.match(describeEvaluations(none, chooseEvaluations(none)), /No manifest/);
});

test('a class that one version lacks is not known there, and one without objects has no row', () => {
  const rows = classRows([
    score({ by_class: { mug: { ap50: 0.9, objects: 1 }, key: { ap50: null, objects: 0 } } }),
    score({ by_class: { pen: { ap50: 0.5 } } }),
  ]);
  assert.deepEqual(rows.map(({ name, cells }) => [name, ...cells.map((cell) => cell?.text ?? null)]), [['mug', '0.900', null], ['pen', null, '0.500']]);
  assert.equal(rows[0].cells[0].note, '1 object');
});

test('zero false boxes are a figure, absent ones are none', () => {
  const [row] = otherRows([score({ false_per_empty_picture: 0, empty_pictures: 4 }), score()]);
  assert.deepEqual(row.cells, [{ value: 0, low: null, high: null, text: '0.00', note: '4 pictures' }, null]);
});

test('errors of all versions have rows, with 0 where a version had none', () => {
  const errors = { frames_failed: 1, frames_dropped: {}, requests: { 429: 5 }, model_failures: 0 };
  const rows = Object.fromEntries(countRows([traffic(), traffic({ errors })]).map(({ name, cells }) => [name, cells.map(({ value }) => value)]));
  assert.deepEqual(rows['Frames dropped: stale'], [2, 0]);
  assert.deepEqual(rows['Requests with status 429'], [0, 5]);
  assert.deepEqual(rows['… WebSocket'], [4, 4]);
  const notes = countRows([traffic({ errors })]).filter(({ name }) => /failed|429/.test(name)).map(({ cells: [cell] }) => cell.note);
  assert.deepEqual(notes, ['11.1% of all', '62.5% of all'], 'of 9 frames and of 8 requests');
  assert.deepEqual(countRows([traffic(), undefined])[0].cells[1], null);
});

test('boxes per frame are those of all classes, then of the most frequent class first', () => {
  const boxes = { total: 7, frames: 4, without: 1, by_class: { key: 1, mug: 6 } };
  const rows = boxRows([traffic({ boxes }), undefined, traffic()]);
  assert.deepEqual(rows.map(({ name, cells }) => [name, ...cells.map((cell) => cell && [cell.text, cell.note])]), [
    ['All classes', ['1.750', '7 boxes'], null, null],
    ['mug', ['1.500', '6 boxes'], null, null],
    ['key', ['0.250', '1 box'], null, null],
  ]);
  const [without] = countRows([traffic({ boxes })]).filter(({ name }) => name === 'Frames without a box');
  assert.deepEqual([without.cells[0].value, without.cells[0].note], [1, '25% of all']);
  assert.deepEqual(boxRows([traffic()]), []);
});

test('a quantile has the bounds of its bucket, and no upper one in the last', () => {
  const request = { p50: { value_ms: 18.123, low_ms: 10, high_ms: 25 }, p99: { value_ms: 10000, low_ms: 10000, high_ms: null } };
  const rows = latencyRows([traffic({ latency: { stages: {}, request } }), traffic()], 'request');
  assert.deepEqual(rows.map(({ name, cells: [cell] }) => [name, cell.text, cell.note]), [['median', '18.1 ms', '10 to 25'], ['99%', 'over 10000 ms', '']]);
  assert.equal(rows[0].cells[1], null);
});

test('scales end at round numbers', () => {
  const rows = (value, high = null) => [{ name: '', cells: [null, { value, low: null, high }] }];
  assert.deepEqual([rows(0), rows(18, 25), rows(0.3), rows(100), rows(101), []].map(scaleOf), [1, 25, 0.5, 100, 200, 1]);
});

test('durations are short', () => {
  assert.deepEqual([3, 61, 3600 * 2 + 300, 86400 * 3 + 3600].map(durationText), ['3 s', '1 min', '2 h 5 min', '3 d 1 h']);
});

const quantity = (changes = {}) => ({
  difference: -0.098, interval: [-0.12, -0.08], always_valid: [-0.15, null], margin: 0.05, unit: 'share', verdict: 'differs', judged: true, ...changes,
});

test('a difference is told with the interval that holds at any time', () => {
  const comparison = { quantities: { boxes: quantity(), score: quantity({ unit: 'absolute', always_valid: [null, null] }), jitter: { verdict: 'undecided' } } };
  const rows = quantityRows(comparison);
  assert.deepEqual(rows.map(({ name, text, note }) => [name, text, note]), [
    ['Number of boxes', '−9.8%', '−15% to ∞'],
    ['Scores of the same boxes', '−0.098', 'too early'],
  ]);
  assert.ok(Math.abs(reachOf(rows) - 0.15) < 1e-9);
  assert.deepEqual(differenceRows({ classes: { mug: quantity(), key: { verdict: 'undecided' } } }).map(({ name }) => name), ['mug']);
});

test('shares have a sign unless they are zero', () => {
  assert.deepEqual([0.031, -0.5, 0, -0.0001].map(percent), ['+3.1%', '−50%', '0.0%', '0.0%']);
});

test('the comparison says how much it is based on', () => {
  const counted = { frames: 1200, streams: 1, windows: 4, windows_needed: 30, hours: 0.33 };
  assert.equal(countedText({ counted }), 'From 1,200 frames of 1 stream in 0.3 hours; a verdict needs 30 windows of five minutes, 4 are over.');
  assert.equal(countedText({ counted: { ...counted, frames: 0 } }), 'A verdict needs 30 windows of five minutes.');
});

test('a line over time leaves out what is not known', () => {
  const history = [['2026-12-01T10:00:00Z', 1], ['2026-12-01T10:05:00Z', undefined], ['2026-12-01T10:10:00Z', 2]].map(([at, first]) => ({ at, first }));
  assert.equal(linePoints(history, ({ first }) => first, 2, 100, 50), '0.0,25.0 100.0,0.0');
});
