import assert from 'node:assert/strict';
import { test } from 'node:test';

import { describeDrift, describeGroup, describeRolling, describeUpdate, driftBadge, driftBars, suggestedHours } from '../../../static/js/drift-text.js';

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

test('every status of the server but the one of a server without drift detection has a badge', () => {
  for (const status of ['ok', 'drift', 'insufficient_data', 'stale_reference', 'no_reference', 'error']) {
    assert.ok(driftBadge(status).text, status);
  }
  assert.equal(driftBadge('disabled'), null);
});

test('bars are those of the columns that are furthest from the reference', () => {
  const columns = [0.2, 2.5, null, 1, 0.9, 0.1].map((ratio, index) => ({ name: `column${index}`, ratio }));
  columns[1].name = 'log_sharpness';
  const bars = driftBars({ columns });
  assert.deepEqual(bars.map(({ ratio }) => ratio), [2.5, 1, 0.9, 0.2]);
  assert.deepEqual(bars[0], { name: 'sharpness', ratio: 2.5, text: '250% of the threshold' });
  assert.deepEqual(driftBars({}), []);
});

test('a bar says what was compared', () => {
  const texts = ['window', '2 h', 'step'].map((basis) => driftBars({ columns: [{ name: 'noise', ratio: 1.2, basis }] })[0].text);
  const threshold = '120% of the threshold';
  assert.deepEqual(texts, [threshold, `${threshold}, mean of the last 2 h`, `${threshold}, a sudden change`]);
});

test('a reference that grows says how far it is, and which day was not added', () => {
  const rolling = { days: 9.5, most_days: 14, skipped: [], waiting: null };
  assert.equal(describeRolling(undefined), '');
  assert.equal(describeRolling(rolling), 'Reference of 9.5 of 14 days.');
  const skipped = [{ date: '2026-01-02', reason: 'no rows' }, { date: '2026-01-03', reason: 'log_sharpness is 0.4 away' }];
  assert.equal(describeRolling({ ...rolling, skipped }), 'Reference of 9.5 of 14 days. 2026-01-03 was not added: sharpness is 0.4 away.');
  assert.equal(describeRolling({ ...rolling, waiting: 'Rows are gone.' }), 'Reference of 9.5 of 14 days. Rows are gone.');
});

test('a time of day that no reference knows is no lack of frames', () => {
  const night = { status: 'insufficient_data', cannot_judge: 'The reference has no rows of 18:00-08:00.' };
  const unseen = describeDrift({ status: 'insufficient_data', groups: { gate: night } });
  assert.deepEqual(unseen, { state: 'idle', text: 'Drift: the reference does not know this time of day' });
  const some = { gate: night, hall: { status: 'insufficient_data', cannot_judge: null } };
  assert.equal(describeDrift({ status: 'insufficient_data', groups: some }).text, 'Drift: not enough frames yet');
});

test('a group is described with the beginning of its drift', () => {
  const drifting = { status: 'drift', since: '2026-01-02T03:04:05+00:00', severity: 'severe' };
  assert.equal(describeGroup(drifting, (time) => time.toISOString()), 'severe, since 2026-01-02T03:04:05.000Z');
  const sudden = { ...drifting, kind: 'sudden', changed_at: '2026-01-02T02:50:00+00:00' };
  assert.equal(describeGroup(sudden, (time) => time.toISOString()), 'severe, sudden, since 2026-01-02T02:50:00.000Z');
  assert.equal(describeGroup({ status: 'ok', since: null, severity: null }, String), 'no drift');
  assert.equal(describeGroup({ status: 'ok', recurring: true }, String), 'no drift: a change that recurs every day');
  const night = { status: 'insufficient_data', cannot_judge: 'The reference has no rows of 18:00-08:00.' };
  assert.equal(describeGroup(night, String), 'The reference has no rows of 18:00-08:00.');
});

test('the hours to learn are those since the drift began, else three days', () => {
  const nowMs = Date.parse('2026-01-02T03:00:00Z');
  const status = { since: '2026-01-02T00:00:00Z', groups: { gate: { since: '2026-01-02T01:27:00Z' }, hall: { since: null } } };
  assert.equal(suggestedHours(status, 'gate', nowMs), 1.6);
  assert.equal(suggestedHours(status, '*', nowMs), 3);
  assert.equal(suggestedHours(status, 'hall', nowMs), 72);
  assert.equal(suggestedHours({ status: 'no_reference' }, '*', nowMs), 72);
});

test('an update says what was learned and what was left out', () => {
  const gate = { rows: 512, span_h: 3, calibrated: false, ratio_after: 0.4 };
  const text = describeUpdate({ groups: { gate }, skipped: { hall: '12 rows; needed are 100' } });
  assert.equal(
    text,
    'gate: 512 rows of 3.0 h; now at 40% of its threshold; thresholds are not calibrated. hall is left out: 12 rows; needed are 100.',
  );
});
