// Smaller pure parts: addresses and close codes, statistics, settings, colours, and words for problems.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { classColour, classDash } from '../../../static/js/palette.js';
import { cameraProblem, closeProblem, fileProblem, keyProblem } from '../../../static/js/problems.js';
import { afterClose, streamUrl } from '../../../static/js/protocol.js';
import { samplesText, startText } from '../../../static/js/sampling-panel.js';
import { loadSettings, saveSettings } from '../../../static/js/settings.js';
import { RateMeter, Samples, Tally } from '../../../static/js/statistics.js';
import { Tuning } from '../../../static/js/tuning.js';

test('stream addresses follow the page, also below a prefix, and carry no query', () => {
  assert.equal(streamUrl('http://127.0.0.1:8000/?source=sample', 'v1'), 'ws://127.0.0.1:8000/v1/stream');
  assert.equal(streamUrl('https://example.test/vision/', 'v2'), 'wss://example.test/vision/v2/stream');
});

test('after some closes the page must not come back, after one it needs a key', () => {
  for (const code of [4400, 4403, 4404, 4406, 4409, 4422]) assert.equal(afterClose(code), 'stop');
  assert.equal(afterClose(4401), 'key');
  for (const code of [1000, 1001, 1006, 1011, 1012, 1013, 4408, 4410, 4429, 4440, 4441]) {
    assert.equal(afterClose(code), 'retry');
  }
});

test('rates are right from the first second on and fall to nothing', () => {
  const meter = new RateMeter(3000);
  assert.equal(meter.perSecond(0), 0);
  for (let nowMs = 0; nowMs < 10000; nowMs += 100) meter.tick(nowMs);
  assert.ok(Math.abs(meter.perSecond(10000) - 10) <= 0.5);
  assert.equal(meter.perSecond(20000), 0);
});

test('quantiles count the newest values only', () => {
  const samples = new Samples(100);
  assert.equal(samples.quantile(0.5), null);
  for (let value = 1; value <= 200; value++) samples.add(value);
  assert.equal(samples.values.length, 100);
  assert.equal(samples.quantile(0.5), 151);
  assert.equal(samples.quantile(0.95), 196);
  assert.equal(samples.quantile(1), 200);
  assert.equal(samples.quantile(0, 10), 191);
});

test('tallies add up, most frequent first', () => {
  const tally = new Tally();
  tally.add('stale');
  tally.add('superseded', 3);
  assert.equal(tally.total, 4);
  assert.deepEqual(tally.entries, [['superseded', 3], ['stale', 1]]);
});

function storage(text) {
  const kept = new Map([['demo.settings', text]]);
  return { getItem: (name) => kept.get(name) ?? null, setItem: (name, value) => kept.set(name, value) };
}

test('settings survive, broken or foreign values do not', () => {
  const store = storage('{"threshold": 0.4, "view": "sideways", "track": "yes", "classes": {"v1": ["bus"]}}');
  const settings = loadSettings(store, new URLSearchParams('version=v2'));
  assert.equal(settings.threshold, 0.4);
  assert.equal(settings.view, 'live');
  assert.equal(settings.track, false);
  assert.equal(settings.version, 'v2');
  assert.deepEqual(settings.classes, { v1: ['bus'] });
  saveSettings(store, { ...settings, threshold: 0.6 });
  assert.equal(loadSettings(store, new URLSearchParams()).threshold, 0.6);
  for (const broken of ['{', 'null', '[]', '7']) {
    assert.equal(loadSettings(storage(broken), new URLSearchParams()).threshold, null);
  }
  assert.equal(loadSettings(null, new URLSearchParams('view=synced')).view, 'synced');
  assert.equal(loadSettings(null, new URLSearchParams('view=nonsense')).view, 'live');
});

test('the threshold is the model\'s own until the person moves the slider', () => {
  const settings = loadSettings(null, new URLSearchParams());
  const tuning = new Tuning(settings, '', () => [], () => {});
  assert.deepEqual(tuning.hello('', null).params, { track: false });
  assert.equal(tuning.threshold, null, 'only the server knows it');
  tuning.welcomed({ conf_threshold: 0.35, classes: [] });
  assert.equal(tuning.threshold, 0.35);
  assert.equal(tuning.wants([0, 0, 1, 1, 0.3, 0], ['bus']), false);
  settings.threshold = 0.2;
  assert.deepEqual(tuning.params, { conf_threshold: 0.2, track: false });
  assert.equal(tuning.wants([0, 0, 1, 1, 0.3, 0], ['bus']), true);
  tuning.welcomed({ conf_threshold: 0.2, classes: [] });
  settings.threshold = null;
  assert.equal(tuning.threshold, 0.35);
  tuning.welcomed({ conf_threshold: 0, classes: [] });
  assert.equal(tuning.threshold, 0);
});

test('neighbouring classes differ in colour, and classes of one colour in their line', () => {
  assert.equal(new Set([0, 1, 2, 3, 4, 5, 6, 7].map(classColour)).size, 8);
  assert.equal(classColour(3), classColour(11));
  assert.notDeepEqual(classDash(3), classDash(11));
});

test('every problem says what to do', () => {
  const problems = [
    ...['NotAllowedError', 'NotFoundError', 'NotReadableError', 'InsecureError', 'lost', 'OddError'].map(cameraProblem),
    fileProblem('a.avi'),
    closeProblem(4403, ''),
    closeProblem(4999, 'odd'),
    keyProblem(true),
  ];
  for (const { kind, title, text, actions } of problems) {
    assert.ok(kind && title && text.length > 30 && actions.length, kind);
  }
  assert.equal(new Set(problems.map(({ title }) => title)).size, problems.length - 1); // both closes share one
  assert.match(cameraProblem('NotReadableError').text, /another program/i);
  assert.equal(cameraProblem('OverconstrainedError').kind, 'no-camera');
  assert.equal(closeProblem(4401, '').kind, 'key');
});

test('the page says before it opens a camera whether frames may be kept, and how many were', () => {
  assert.match(startText(true), /this server only.*may keep single frames/);
  assert.doesNotMatch(startText(false), /keep/);
  assert.equal(samplesText(0), 'None kept so far');
  assert.match(samplesText(1), /^1 frame kept/);
  assert.match(samplesText(12), /^12 frames kept/);
});
