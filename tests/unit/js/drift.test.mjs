import assert from 'node:assert/strict';
import { test } from 'node:test';

import { describeDrift } from '../../../static/js/drift-indicator.js';

const group = (status, moved = [], samples = 0) => ({ status, moved, samples });

test('at most two groups in drift are named, with three features each', () => {
  const groups = {
    gate: group('drift', ['brightness', 'log_sharpness', 'n_boxes', 'noise'], 3),
    hall: group('ok'),
    yard: group('drift', ['noise'], 1),
    roof: group('drift'),
  };
  assert.deepEqual(describeDrift({ status: 'drift', groups }), {
    state: 'drift',
    text: 'Drift detected: gate (brightness, sharpness, number of boxes); yard (noise); 1 more. 4 frames saved as training data',
  });
  const one = describeDrift({ status: 'drift', groups: { gate: group('drift', [], 1) } });
  assert.equal(one.text, 'Drift detected: gate. 1 frame saved as training data');
});

test('every other status has a text or is not shown', () => {
  assert.equal(describeDrift({ status: 'ok' }).state, 'ok');
  assert.equal(describeDrift({ status: 'error' }).state, 'error');
  assert.equal(describeDrift({ status: 'insufficient_data' }).state, 'idle');
  assert.equal(describeDrift({ status: 'no_reference' }), null);
  assert.equal(describeDrift({ status: 'disabled' }), null);
});

test('without names of groups, only the drift itself is shown', () => {
  const text = 'Drift detected';
  assert.deepEqual(describeDrift({ status: 'drift', groups: {} }), { state: 'drift', text });
  assert.deepEqual(describeDrift({ status: 'drift' }), { state: 'drift', text });
});
