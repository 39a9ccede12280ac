// Labels of boxes: where they go, that none hides another, and that they stay on the canvas near their box.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { placeLabels } from '../../../static/js/label-placement.js';

const CANVAS = { width: 640, height: 360 };
const label = (x, y, width = 100, height = 80) => ({ box: { x, y, width, height }, width: 70, height: 20 });

function overlaps(items, places) {
  const rects = items.map((item, index) => places[index] && { ...places[index], width: item.width, height: item.height });
  const shown = rects.filter(Boolean);
  return shown.some((a, i) =>
    shown.slice(i + 1).some((b) => a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height),
  );
}

test('a label lies above its box, aligned with its left edge', () => {
  assert.deepEqual(placeLabels([label(100, 100)], CANVAS, 1), [{ x: 99, y: 79 }]);
});

test('at the upper edge it lies inside, and at the right edge it is moved into the canvas', () => {
  assert.deepEqual(placeLabels([label(100, 5)], CANVAS, 1), [{ x: 99, y: 4 }]);
  assert.deepEqual(placeLabels([label(600, 100, 40)], CANVAS, 1), [{ x: 570, y: 79 }]);
  assert.deepEqual(placeLabels([label(100, -30)], CANVAS, 1), [{ x: 99, y: 0 }]);
});

test('of two boxes at one place, the first keeps the place above, and both labels can be read', () => {
  const items = [label(100, 100), label(102, 101)];
  const places = placeLabels(items, CANVAS, 1);
  assert.deepEqual(places[0], { x: 99, y: 79 });
  assert.ok(places[1] && !overlaps(items, places));
});

test('ten boxes at one place all have their label, none over another', () => {
  const items = Array.from({ length: 10 }, (_, n) => label(200 + n, 150 + n));
  const places = placeLabels(items, CANVAS, 1);
  assert.ok(places.every(Boolean));
  assert.ok(!overlaps(items, places));
});

test('labels never overlap and never leave the canvas, whatever the boxes are', () => {
  let seed = 7;
  const random = (limit) => ((seed = (seed * 1103515245 + 12345) % 2147483648) / 2147483648) * limit;
  for (let round = 0; round < 40; round += 1) {
    const items = Array.from({ length: 60 }, () => ({
      box: { x: random(600), y: random(340), width: 5 + random(200), height: 5 + random(200) },
      width: 40 + random(90),
      height: 20,
    }));
    const places = placeLabels(items, CANVAS, 1.25);
    assert.ok(!overlaps(items, places));
    items.forEach(({ width, height }, index) => {
      const place = places[index];
      if (!place) return;
      assert.ok(place.x >= 0 && place.y >= 0 && place.x + width <= CANVAS.width && place.y + height <= CANVAS.height);
    });
    assert.ok(places[0], 'the most important label always has a place');
  }
});

test('where no place is left near the box, the less important labels are left out', () => {
  const items = Array.from({ length: 200 }, () => label(300, 150, 10, 10));
  const places = placeLabels(items, CANVAS, 1);
  const first = places.indexOf(null);
  assert.ok(first > 8);
  assert.ok(places.slice(first).every((place) => place === null));
});
