// Rate first, then quality, then size; down at once, up with patience; and the waits between connections.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Adaptation, LADDER } from '../../../static/js/adaptation.js';
import { Backoff } from '../../../static/js/backoff.js';

const CALM = { wireMs: 5, unsentShare: 0, encodeMs: 3 };
const CROWDED = { wireMs: 900, unsentShare: 0.6, encodeMs: 3 };

function periodsUntilChange(adaptation, period, most = 500) {
  const { level } = adaptation;
  for (let n = 1; n <= most; n++) {
    adaptation.update(period);
    if (adaptation.level !== level) return n;
  }
  return null;
}

test('the ladder gives up rate before quality before size, and never gains on the way down', () => {
  const first = (name) => LADDER.findIndex((step) => step[name] !== LADDER[0][name]);
  assert.ok(first('fps') < first('quality') && first('quality') < first('size'));
  for (let n = 1; n < LADDER.length; n++) {
    for (const name of ['fps', 'quality', 'size']) assert.ok(LADDER[n][name] <= LADDER[n - 1][name]);
  }
});

test('calm keeps the best; nothing measured is calm', () => {
  const adaptation = new Adaptation();
  for (let n = 0; n < 50; n++) adaptation.update({ wireMs: null, unsentShare: 0, encodeMs: null });
  assert.deepEqual(adaptation.settings, LADDER[0]);
});

test('a crowded line, unsent frames, and a slow encoder each step down at once', () => {
  for (const trouble of [{ wireMs: 400 }, { unsentShare: 0.5 }, { encodeMs: 60 }]) {
    assert.equal(periodsUntilChange(new Adaptation(), { ...CALM, ...trouble }), 1);
  }
});

test('it stops at the bottom and comes back to the top', () => {
  const adaptation = new Adaptation();
  for (let n = 0; n < 100; n++) adaptation.update(CROWDED);
  assert.equal(adaptation.level, LADDER.length - 1);
  for (let n = 0; n < 1000; n++) adaptation.update(CALM);
  assert.equal(adaptation.level, 0);
});

test('a step up that does not hold makes the next one wait longer', () => {
  const adaptation = new Adaptation();
  adaptation.update(CROWDED);
  const waits = [];
  for (let round = 0; round < 4; round++) {
    waits.push(periodsUntilChange(adaptation, CALM));
    periodsUntilChange(adaptation, CROWDED);
  }
  assert.ok(waits[1] > waits[0] && waits[2] > waits[1], waits.join(' '));
});

test('waits between connections are jittered, grow, and stay between 0.5 s and 30 s', () => {
  const longest = new Backoff(() => 1);
  const delays = Array.from({ length: 10 }, () => longest.next());
  assert.deepEqual(delays.slice(0, 3), [1000, 2000, 4000]);
  assert.equal(delays.at(-1), 30000);
  assert.equal(new Backoff(() => 0).next(), 500);
  longest.reset();
  assert.equal(longest.next(), 1000);
});
