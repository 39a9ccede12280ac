// URLs and close codes, statistics, settings, session options, colours, and texts.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { changesDetection, enteredMaxDetections, MODEL_DEFAULTS, needsDefaults } from '../../../static/js/detection-parameters.js';
import { cameraError, closeError, fileError, keyError } from '../../../static/js/error-messages.js';
import { classColour, classDash } from '../../../static/js/palette.js';
import { actionAfterClose, explainBye, streamUrl } from '../../../static/js/protocol.js';
import { privacyText, reportText, samplesText } from '../../../static/js/sampling-panel.js';
import { SessionOptions } from '../../../static/js/session-options.js';
import { loadSettings, saveSettings } from '../../../static/js/settings.js';
import { RateMeter, ReasonCounter, RecentValues } from '../../../static/js/statistics.js';

test('stream URLs are relative to the page, also below a prefix, and have no query', () => {
  assert.equal(streamUrl('http://127.0.0.1:8000/?source=sample', 'v1'), 'ws://127.0.0.1:8000/v1/stream');
  assert.equal(streamUrl('https://example.test/vision/', 'v2'), 'wss://example.test/vision/v2/stream');
});

test('after some close codes the page does not reconnect, and after one it asks for a key', () => {
  for (const code of [4400, 4403, 4404, 4406, 4409, 4422]) assert.equal(actionAfterClose(code), 'stop');
  assert.equal(actionAfterClose(4401), 'askForKey');
  for (const code of [1000, 1001, 1006, 1011, 1012, 1013, 4408, 4410, 4429, 4440, 4441]) {
    assert.equal(actionAfterClose(code), 'reconnect');
  }
});

test('the page says whether a stream moves or the server ends', () => {
  assert.match(explainBye({ ending: 'moved' }, 'The server is restarting'), /^The stream is moving to another replica/);
  assert.equal(explainBye({}, 'The server is restarting'), 'The server is restarting');
});

test('rates are correct from the first second on and fall to zero', () => {
  const meter = new RateMeter(3000);
  assert.equal(meter.perSecond(0), 0);
  for (let nowMs = 0; nowMs < 10000; nowMs += 100) meter.tick(nowMs);
  assert.ok(Math.abs(meter.perSecond(10000) - 10) <= 0.5);
  assert.equal(meter.perSecond(20000), 0);
});

test('quantiles use only the newest values', () => {
  const recent = new RecentValues(100);
  assert.equal(recent.quantile(0.5), null);
  for (let value = 1; value <= 200; value++) recent.add(value);
  assert.equal(recent.values.length, 100);
  assert.equal(recent.quantile(0.5), 151);
  assert.equal(recent.quantile(0.95), 196);
  assert.equal(recent.quantile(1), 200);
  assert.equal(recent.quantile(0, 10), 191);
});

test('reasons are counted and listed with the most frequent first', () => {
  const counter = new ReasonCounter();
  counter.add('stale');
  counter.add('superseded', 3);
  assert.equal(counter.total, 4);
  assert.deepEqual(counter.entries, [['superseded', 3], ['stale', 1]]);
});

function storage(text) {
  const kept = new Map([['demo.settings', text]]);
  return { getItem: (name) => kept.get(name) ?? null, setItem: (name, value) => kept.set(name, value) };
}

test('valid settings are loaded, and invalid ones are replaced by defaults', () => {
  const store = storage('{"threshold": 0.4, "view": "sideways", "track": "yes", "classes": {"v1": ["bus"]}}');
  const settings = loadSettings(store, new URLSearchParams('version=v2'));
  assert.equal(settings.threshold, 0.4);
  assert.equal(settings.view, 'auto');
  assert.equal(settings.track, false);
  assert.equal(settings.version, 'v2');
  assert.deepEqual(settings.classes, { v1: ['bus'] });
  saveSettings(store, { ...settings, threshold: 0.6 });
  assert.equal(loadSettings(store, new URLSearchParams()).threshold, 0.6);
  for (const broken of ['{', 'null', '[]', '7']) {
    assert.equal(loadSettings(storage(broken), new URLSearchParams()).threshold, null);
  }
  assert.equal(loadSettings(null, new URLSearchParams('view=synced')).view, 'synced');
  assert.equal(loadSettings(null, new URLSearchParams('view=nonsense')).view, 'auto');
});

test('the view that earlier versions stored for everybody gives way to the default, a chosen one stays', () => {
  const none = new URLSearchParams();
  assert.equal(loadSettings(storage('{"view": "live", "track": true}'), none).view, 'auto');
  assert.equal(loadSettings(storage('{"view": "live", "track": true}'), none).track, true);
  assert.equal(loadSettings(storage('{"view": "synced"}'), none).view, 'synced');
  assert.equal(loadSettings(storage('{"view": "live"}'), new URLSearchParams('view=live')).view, 'live');
  const store = storage('{}');
  saveSettings(store, { ...loadSettings(store, none), view: 'live' });
  assert.equal(loadSettings(store, none).view, 'live');
  assert.deepEqual(Object.keys(JSON.parse(store.getItem('demo.settings'))), ['format', 'view'], 'defaults are not stored');
});

test('parameters are the defaults of the model until the user changes them', () => {
  const settings = loadSettings(null, new URLSearchParams());
  const options = new SessionOptions(settings, '', () => [], () => {});
  assert.deepEqual(options.hello('', null).params, { track: false });
  assert.equal(options.effective.threshold, null, 'not known before the welcome');
  options.handleWelcome({ conf_threshold: 0.35, iou_threshold: 0.45, agnostic_nms: true, max_detections: 300, classes: [] });
  assert.deepEqual(options.effective, { threshold: 0.35, iouThreshold: 0.45, agnosticNms: true, maxDetections: 300 });
  assert.equal(options.accepts([0, 0, 1, 1, 0.3, 0], ['bus']), false);
  settings.threshold = 0.2;
  settings.agnosticNms = false;
  assert.deepEqual(options.params, { conf_threshold: 0.2, agnostic_nms: false, track: false });
  assert.equal(options.effective.agnosticNms, false);
  assert.equal(options.accepts([0, 0, 1, 1, 0.3, 0], ['bus']), true);
  options.handleWelcome({ conf_threshold: 0.2, iou_threshold: 0.5, agnostic_nms: false, classes: [] });
  assert.equal(options.effective.iouThreshold, 0.5);
  Object.assign(settings, MODEL_DEFAULTS);
  assert.deepEqual(options.params, { track: false });
  assert.deepEqual(options.effective, { threshold: 0.35, iouThreshold: 0.5, agnosticNms: true, maxDetections: 300 });
  options.handleWelcome({ conf_threshold: 0, classes: [] });
  assert.equal(options.effective.threshold, 0);
});

test('an entered number of boxes is made one that the server takes', () => {
  const entered = ['', ' ', 'abc', '0', '-3', '1', '20', '2.6', '1000', '5000', '1e9'].map(enteredMaxDetections);
  assert.deepEqual(entered, [null, null, null, 1, 1, 1, 20, 3, 1000, 1000, 1000]);
  const stored = (value) => loadSettings({ getItem: () => JSON.stringify({ format: 2, maxDetections: value }) }, new URLSearchParams());
  assert.deepEqual([5, 0, 2.5, '7', 1001].map((value) => stored(value).maxDetections), [5, null, null, null, null]);
});

test('a parameter is sent to the open session, and a new session is opened to learn the defaults', () => {
  assert.ok(changesDetection({ agnosticNms: true }) && changesDetection({ iouThreshold: 0.5 }));
  assert.ok(changesDetection({ classes: {} }) && !changesDetection({ track: true, theme: 'dark' }));
  assert.ok(needsDefaults(MODEL_DEFAULTS) && !needsDefaults({ threshold: 0.3, agnosticNms: false }));
});

test('neighbouring classes differ in colour, and classes of the same colour in their dash pattern', () => {
  assert.equal(new Set([0, 1, 2, 3, 4, 5, 6, 7].map(classColour)).size, 8);
  assert.equal(classColour(3), classColour(11));
  assert.notDeepEqual(classDash(3), classDash(11));
});

test('every error message has a text and an action', () => {
  const messages = [
    ...['NotAllowedError', 'NotFoundError', 'NotReadableError', 'InsecureError', 'lost', 'OddError'].map(cameraError),
    fileError('a.avi'),
    closeError(4403, ''),
    closeError(4999, 'odd'),
    keyError(true),
  ];
  for (const { kind, title, text, actions } of messages) {
    assert.ok(kind && title && text.length > 30 && actions.length, kind);
  }
  assert.equal(new Set(messages.map(({ title }) => title)).size, messages.length - 1); // both closes have the same
  assert.match(cameraError('NotReadableError').text, /another program/i);
  assert.equal(cameraError('OverconstrainedError').kind, 'no-camera');
  assert.equal(closeError(4401, '').kind, 'key');
});

test('the page says whether the server may save frames, and how many it has saved', () => {
  assert.match(privacyText(true), /only to this server.*may save single frames/);
  assert.doesNotMatch(privacyText(false), /save/);
  assert.equal(samplesText(0), 'No frames saved yet');
  assert.match(samplesText(1), /^1 frame saved/);
  assert.match(samplesText(12), /^12 frames saved/);
});

test('the page says what became of a report, and why a frame was not saved', () => {
  assert.equal(reportText({ taken: true }), 'Saved for training');
  assert.match(reportText({ taken: false, reason: 'spool_full' }), /^Not saved: .*no room/);
  assert.match(reportText({ taken: false, reason: 'duplicate' }), /saved already/);
  assert.match(reportText({ taken: false, reason: 'rate', retry_ms: 61000 }), /the next one in 2 min/);
  assert.equal(reportText({ taken: false, reason: 'rate' }), 'Not saved: too many reports');
  assert.equal(reportText({ taken: false, reason: 'new reason' }), 'Not saved');
});
