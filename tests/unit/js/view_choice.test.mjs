// Which view is chosen for a source, and how models are named.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { modelHint, modelTexts, ViewChoice } from '../../../static/js/view-choice.js';

const measured = (delayMs, unmatched = 0) => ({ delayMs, unmatched });

test('files and samples have exact boxes, whatever the delay', () => {
  const choice = new ViewChoice();
  assert.equal(choice.choose('auto', 'file', measured(null)), 'synced');
  assert.equal(choice.choose('auto', 'sample', measured(900)), 'synced');
});

test('a camera has exact boxes while its delay is short, and the view does not flicker', () => {
  const choice = new ViewChoice();
  const views = [null, 150, 250, 301, 250, 200].map((delayMs) => choice.choose('auto', 'camera', measured(delayMs)));
  assert.deepEqual(views, ['live', 'synced', 'synced', 'live', 'live', 'synced']);
  choice.restart();
  assert.equal(choice.choose('auto', 'camera', measured(250)), 'live');
});

test('where frames of results are not known, boxes are drawn over the running video', () => {
  const choice = new ViewChoice();
  assert.equal(choice.choose('auto', 'file', measured(100, 14)), 'synced');
  assert.equal(choice.choose('auto', 'file', measured(100, 15)), 'live');
});

test('what the user has chosen holds', () => {
  const choice = new ViewChoice();
  assert.equal(choice.choose('live', 'file', measured(10)), 'live');
  assert.equal(choice.choose('synced', 'camera', measured(9000, 99)), 'synced');
});

test('models have their name and the measured time; equal names are told apart', () => {
  const models = { v1: { name: 'nano' }, v2: { name: 'large' } };
  assert.deepEqual(modelTexts(models, new Map([['v1', 8.24], ['v2', 41.6]])), {
    v1: { name: 'nano', time: '8.2 ms' },
    v2: { name: 'large', time: '42 ms' },
  });
  const same = modelTexts({ v1: { name: 'nano' }, v2: { name: 'nano' } }, new Map());
  assert.deepEqual(same, { v1: { name: 'nano (v1)', time: '' }, v2: { name: 'nano (v2)', time: '' } });
});

test('the hint of a model has the score by which it was judged last', () => {
  assert.equal(modelHint({ name: 'codes_v1', classes: 5 }), 'codes_v1 · 5 classes');
  const lineage = { scores: { val: { map50: 0.84 }, test: { map50: 0.791 } } };
  assert.equal(modelHint({ name: 'own', classes: 1, lineage }), 'own · 1 class · mAP50 0.79');
  const promoted = { scores: { ...lineage.scores, promotion: { map50: 0.8 } } };
  assert.equal(modelHint({ name: 'own', classes: 3, lineage: promoted }), 'own · 3 classes · mAP50 0.80');
});
