// The delay from capture to painted boxes, and whether the results that are shown are current.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { DelayMeter, frameTime, paintTime } from '../../../static/js/delay.js';
import { Freshness } from '../../../static/js/freshness.js';

test('the capture time is the camera’s where the browser knows it, else the time of the grab', () => {
  const camera = frameTime({ captureTime: 960, presentationTime: 990, expectedDisplayTime: 1008 }, 1000);
  assert.deepEqual(camera, { capturedMs: 960, origin: 'camera', mediaMs: 960, displayMs: 1008 });
  const file = frameTime({ presentationTime: 990, expectedDisplayTime: 1008 }, 1000);
  assert.deepEqual(file, { capturedMs: 1000, origin: 'page', mediaMs: 990, displayMs: 1008 });
  assert.deepEqual(frameTime(undefined, 1000), { capturedMs: 1000, origin: 'page', mediaMs: 1000, displayMs: null });
  for (const captureTime of [1001, -9001]) {
    assert.equal(frameTime({ captureTime }, 1000).origin, 'page', 'this time is on another clock');
  }
});

test('boxes appear when their frame does, and not before they were drawn', () => {
  assert.equal(paintTime(1000, 1008), 1008);
  assert.equal(paintTime(1000, 990), 1000);
  assert.equal(paintTime(1000, null), 1000);
});

test('delays of cameras and of grabbed frames are not mixed', () => {
  const meter = new DelayMeter();
  assert.equal(meter.quantile(0.5), null);
  for (let n = 1; n <= 100; n++) meter.add({ capturedMs: 0, origin: 'page' }, n);
  assert.equal(meter.quantile(0.5), 51);
  assert.equal(meter.quantile(0.95), 96);
  meter.add({ capturedMs: 1000, origin: 'camera' }, 1090);
  assert.deepEqual([meter.origin, meter.values], ['camera', [90]]);
});

const PLAYING = { playing: true, paused: false };

test('results are stale one second after the last, and current again with the next', () => {
  const freshness = new Freshness();
  assert.equal(freshness.update({ playing: false, paused: false }, 0), 'idle');
  freshness.restart(0);
  assert.equal(freshness.update(PLAYING, 900), 'waiting');
  for (let nowMs = 1000; nowMs <= 2000; nowMs += 100) {
    freshness.addResult(nowMs);
    assert.equal(freshness.update(PLAYING, nowMs), 'current');
  }
  assert.equal(freshness.update(PLAYING, 3000), 'current');
  assert.equal(freshness.update(PLAYING, 3001), 'stale');
  assert.equal(freshness.ageMs(3001), 1001);
  freshness.addResult(9000);
  assert.equal(freshness.update(PLAYING, 9000), 'current');
  assert.equal(freshness.update(PLAYING, 10001), 'stale', 'the gap is not taken for the usual interval');
});

test('a server that answers rarely is given more time, but not for ever', () => {
  const freshness = new Freshness();
  freshness.restart(0);
  for (const nowMs of [0, 800, 1600, 2400]) {
    freshness.addResult(nowMs);
    freshness.update(PLAYING, nowMs);
  }
  assert.equal(freshness.update(PLAYING, 4400), 'current');
  assert.equal(freshness.update(PLAYING, 4401), 'stale');
});

test('without any result the wait is over after three seconds', () => {
  const freshness = new Freshness();
  freshness.restart(100);
  assert.equal(freshness.update(PLAYING, 3100), 'waiting');
  assert.equal(freshness.update(PLAYING, 3101), 'stale');
});

test('a pause is no standstill, and its time does not count', () => {
  const freshness = new Freshness();
  freshness.restart(0);
  freshness.addResult(0);
  assert.equal(freshness.update({ playing: true, paused: true }, 60000), 'paused');
  assert.equal(freshness.update(PLAYING, 60000), 'current');
  assert.equal(freshness.update(PLAYING, 61001), 'stale');
});
