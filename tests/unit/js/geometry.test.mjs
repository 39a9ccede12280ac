// Mapping of frames and boxes onto the stage: contain and cover, mirrored or not, frames smaller than the source.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { boxToStage, fitWithin, place } from '../../../static/js/geometry.js';

test('contain leaves bars, and cover crops', () => {
  const source = { width: 640, height: 480 };
  const stage = { width: 1600, height: 900 };
  assert.deepEqual(place(source, stage, 'contain', false), { left: 200, top: 0, width: 1200, height: 900, mirror: false });
  assert.deepEqual(place(source, stage, 'cover', true), { left: 0, top: -150, width: 1600, height: 1200, mirror: true });
});

test('a box of a smaller frame covers the same part of the stage', () => {
  const placement = place({ width: 1280, height: 720 }, { width: 640, height: 640 }, 'contain', false);
  const rect = boxToStage([104, 58.5, 208, 117, 0.9, 0], { width: 416, height: 234 }, placement);
  assert.deepEqual(rect, { x: 160, y: 140 + 90, width: 160, height: 90 });
});

test('mirrored boxes are on the other side and keep their size', () => {
  const placement = place({ width: 200, height: 100 }, { width: 400, height: 200 }, 'contain', true);
  assert.deepEqual(boxToStage([10, 0, 60, 50], { width: 200, height: 100 }, placement), { x: 280, y: 0, width: 100, height: 100 });
});

test('a box in the corner of the frame is in the corner of the placement', () => {
  for (const fit of ['contain', 'cover']) {
    for (const mirror of [false, true]) {
      const placement = place({ width: 333, height: 777 }, { width: 500, height: 410 }, fit, mirror);
      const rect = boxToStage([0, 0, 111, 259], { width: 111, height: 259 }, placement);
      assert.ok(Math.abs(rect.x - placement.left) < 1e-9 && Math.abs(rect.y - placement.top) < 1e-9);
      assert.ok(Math.abs(rect.width - placement.width) < 1e-9 && Math.abs(rect.height - placement.height) < 1e-9);
    }
  }
});

test('frames are scaled down to the longest side, keep their aspect ratio, and are never enlarged', () => {
  assert.deepEqual(fitWithin(1280, 720, 416), { width: 416, height: 234 });
  assert.deepEqual(fitWithin(720, 1280, 640), { width: 360, height: 640 });
  assert.deepEqual(fitWithin(320, 240, 416), { width: 320, height: 240 });
  assert.deepEqual(fitWithin(4000, 2, 400), { width: 400, height: 1 });
});
