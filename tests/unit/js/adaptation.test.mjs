// Adaptation of frame rate, quality and size to the network, and the back-off between connection attempts.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Adaptation, LADDER } from '../../../static/js/adaptation.js';
import { Backoff } from '../../../static/js/backoff.js';

const STABLE = { networkMs: 5, unsentShare: 0, encodeMs: 3 };
const CONGESTED = { networkMs: 900, unsentShare: 0.6, encodeMs: 3 };

function periodsUntilChange(adaptation, period, maximum = 500) {
  const { level } = adaptation;
  for (let n = 1; n <= maximum; n++) {
    adaptation.update(period);
    if (adaptation.level !== level) return n;
  }
  return null;
}

test('the ladder reduces the rate before the quality before the size, and no step increases any of them', () => {
  const first = (name) => LADDER.findIndex((step) => step[name] !== LADDER[0][name]);
  assert.ok(first('fps') < first('quality') && first('quality') < first('size'));
  for (let n = 1; n < LADDER.length; n++) {
    for (const name of ['fps', 'quality', 'size']) assert.ok(LADDER[n][name] <= LADDER[n - 1][name]);
  }
});

test('without congestion, or without measurements, the best settings stay', () => {
  const adaptation = new Adaptation();
  for (let n = 0; n < 50; n++) adaptation.update({ networkMs: null, unsentShare: 0, encodeMs: null });
  assert.deepEqual(adaptation.settings, LADDER[0]);
});

test('a slow network, unsent frames and a slow encoder each cause a step down at once', () => {
  for (const congestion of [{ networkMs: 400 }, { unsentShare: 0.5 }, { encodeMs: 60 }]) {
    assert.equal(periodsUntilChange(new Adaptation(), { ...STABLE, ...congestion }), 1);
  }
});

test('steps end at the last level, and lead back to the first when the congestion is over', () => {
  const adaptation = new Adaptation();
  for (let n = 0; n < 100; n++) adaptation.update(CONGESTED);
  assert.equal(adaptation.level, LADDER.length - 1);
  for (let n = 0; n < 1000; n++) adaptation.update(STABLE);
  assert.equal(adaptation.level, 0);
});

test('a step up that has to be taken back doubles the wait for the next', () => {
  const adaptation = new Adaptation();
  adaptation.update(CONGESTED);
  const waits = [];
  for (let round = 0; round < 4; round++) {
    waits.push(periodsUntilChange(adaptation, STABLE));
    periodsUntilChange(adaptation, CONGESTED);
  }
  assert.ok(waits[1] > waits[0] && waits[2] > waits[1], waits.join(' '));
});

test('delays between connection attempts grow, have jitter, and stay between 0.5 s and 30 s', () => {
  const longest = new Backoff(() => 1);
  const delays = Array.from({ length: 10 }, () => longest.next());
  assert.deepEqual(delays.slice(0, 3), [1000, 2000, 4000]);
  assert.equal(delays.at(-1), 30000);
  assert.equal(new Backoff(() => 0).next(), 500);
  longest.reset();
  assert.equal(longest.next(), 1000);
});
