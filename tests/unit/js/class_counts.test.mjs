// Counts per class and interval: distinct tracks, or the mean number of boxes where there are no track ids.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { ClassCounts, INTERVAL_MS, INTERVALS } from '../../../static/js/class-counts.js';

const LABELS = ['person', 'bus'];
const NOW = Date.UTC(2026, 0, 31, 12, 0, 5);
const box = (classId, track) => [0, 0, 1, 1, 0.9, classId, ...(track === undefined ? [] : [track])];
const of = (counts, label, nowMs = NOW) => counts.series(nowMs).find((series) => series.label === label);

test('without track ids a count is the mean number of boxes per result', () => {
  const counts = new ClassCounts();
  counts.add([box(0), box(0), box(1)], LABELS, NOW);
  counts.add([box(0)], LABELS, NOW + 1);
  const person = of(counts, 'person');
  assert.equal(person.kind, 'mean');
  assert.equal(person.values.at(-1), 1.5);
  assert.equal(person.values.at(-2), null);
  assert.equal(person.total, 1.5);
  assert.equal(of(counts, 'bus').values.at(-1), 0.5);
});

test('with track ids a count is the number of distinct tracks', () => {
  const counts = new ClassCounts();
  for (let n = 0; n < 5; n += 1) counts.add([box(0, 1), box(0, 2)], LABELS, NOW + n);
  counts.add([box(0, 2), box(0, 3)], LABELS, NOW + INTERVAL_MS);
  const person = of(counts, 'person', NOW + INTERVAL_MS);
  assert.equal(person.kind, 'tracks');
  assert.deepEqual(person.values.slice(-2), [2, 2]);
  assert.equal(person.total, 3);
});

test('track ids of another session are other objects', () => {
  const counts = new ClassCounts();
  counts.add([box(0, 1)], LABELS, NOW);
  counts.startSession();
  counts.add([box(0, 1)], LABELS, NOW);
  assert.equal(of(counts, 'person').total, 2);
});

test('an interval with results and without objects counts 0, one without results is empty', () => {
  const counts = new ClassCounts();
  counts.add([box(0)], LABELS, NOW);
  counts.add([], LABELS, NOW + 2 * INTERVAL_MS);
  assert.deepEqual(of(counts, 'person', NOW + 2 * INTERVAL_MS).values.slice(-3), [1, null, 0]);
});

test('ten minutes are kept, and a clock that is set back changes nothing', () => {
  const counts = new ClassCounts();
  for (let n = 0; n < 200; n += 1) counts.add([box(n < 100 ? 1 : 0)], LABELS, NOW + n * INTERVAL_MS);
  const end = NOW + 199 * INTERVAL_MS;
  assert.equal(counts.series(end).length, 1);
  assert.deepEqual(of(counts, 'person', end).values, new Array(INTERVALS).fill(1));
  counts.add([box(0), box(0)], LABELS, NOW);
  assert.equal(of(counts, 'person', end).values.at(-1), 1.5);
});

test('CSV has a row per interval and class, quotes labels, and starts no formula', () => {
  const counts = new ClassCounts();
  counts.add([box(0), box(1), box(1)], ['=cmd|"x"', 'bus'], NOW);
  assert.equal(
    counts.toCsv(NOW),
    'start,seconds,class,count,kind,results\r\n' +
      '2026-01-31T12:00:00.000Z,10,"bus",2,mean,1\r\n' +
      '2026-01-31T12:00:00.000Z,10,"\'=cmd|""x""",1,mean,1\r\n',
  );
});
