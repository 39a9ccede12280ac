import assert from 'node:assert/strict';
import { test } from 'node:test';

import { describeDrift } from '../../../static/js/drift-light.js';

const group = (status, moved = [], samples = 0) => ({ status, moved, samples });

test('what is unlike is named, at most two groups with three columns each', () => {
  const groups = {
    gate: group('drift', ['brightness', 'log_sharpness', 'n_boxes', 'noise'], 3),
    hall: group('ok'),
    yard: group('drift', ['noise'], 1),
    roof: group('drift'),
  };
  assert.deepEqual(describeDrift({ status: 'drift', groups }), {
    state: 'drift',
    text: 'Unlike what is usual: gate (brightness, sharpness, number of boxes); yard (noise); 1 more; 4 frames kept because of it',
  });
  const one = describeDrift({ status: 'drift', groups: { gate: group('drift', [], 1) } });
  assert.equal(one.text, 'Unlike what is usual: gate; 1 frame kept because of it');
});

test('every other status has its words, or is not shown', () => {
  assert.equal(describeDrift({ status: 'ok' }).state, 'ok');
  assert.equal(describeDrift({ status: 'error' }).state, 'bad');
  assert.equal(describeDrift({ status: 'insufficient_data' }).state, 'idle');
  assert.equal(describeDrift({ status: 'no_reference' }), null);
  assert.equal(describeDrift({ status: 'disabled' }), null);
});

test('who may not see names is told that something drifts, and not what', () => {
  const text = 'Pictures are unlike what is usual';
  assert.deepEqual(describeDrift({ status: 'drift', groups: {} }), { state: 'drift', text });
  assert.deepEqual(describeDrift({ status: 'drift' }), { state: 'drift', text });
});
