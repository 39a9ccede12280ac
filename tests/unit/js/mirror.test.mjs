// Cameras: which is opened next, and when its video is mirrored: as people see themselves, but not if it shows text.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { isUserFacing } from '../../../static/js/camera.js';
import { isMirrored, isTextLabel, isTextModel } from '../../../static/js/mirror.js';
import { loadSettings } from '../../../static/js/settings.js';
import { nextCamera } from '../../../static/js/wall.js';

const CODES = ['qr_code', 'data_matrix', 'pdf417', 'aztec', 'code_128'];
const THINGS = ['person', 'bicycle', 'car', 'stop sign', 'book'];
const state = (changes) => ({ isUserFacing: true, labels: THINGS, hasSeenText: false, ...changes });
const track = (facingMode, label) => ({ label, getSettings: () => ({ facingMode }) });

test('a camera that faces the user is mirrored, any other source is not', () => {
  assert.equal(isMirrored(state({})), true);
  assert.equal(isMirrored(state({ isUserFacing: false })), false);
});

test('a model of codes is not mirrored, nor is a source that has shown something to read', () => {
  assert.equal(isMirrored(state({ labels: CODES })), false);
  assert.equal(isMirrored(state({ hasSeenText: true })), false);
});

test('what the user has chosen counts most', () => {
  assert.equal(isMirrored(state({ choice: true, isUserFacing: false, labels: CODES })), true);
  assert.equal(isMirrored(state({ choice: false })), false);
});

test('classes of things that are read are known by words of their names', () => {
  for (const label of [...CODES, 'License Plate', 'traffic-signs', 'Barcode', 'text']) assert.ok(isTextLabel(label), label);
  for (const label of ['person', 'design', 'laptop', 'context', 'template', '']) assert.ok(!isTextLabel(label), label);
  assert.ok(isTextModel(CODES) && !isTextModel(THINGS) && !isTextModel([]));
});

test('the browser tells which way a camera faces, or its name does', () => {
  assert.equal(isUserFacing(track('user', 'back')), true);
  assert.equal(isUserFacing(track('environment', 'front')), false);
  assert.equal(isUserFacing(track(undefined, 'Integrated Webcam')), true);
  for (const label of ['camera2 0, facing back', 'USB Capture HDMI', 'OBS Virtual Camera', 'Document Scanner']) {
    assert.equal(isUserFacing(track(undefined, label)), false, label);
  }
});

test('choices are remembered by camera, and anything else that is stored is ignored', () => {
  const stored = (mirrors) => loadSettings({ getItem: () => JSON.stringify({ mirrors }) }, new URLSearchParams()).mirrors;
  assert.deepEqual(stored({ abc: true, file: false }), { abc: true, file: false });
  assert.deepEqual(stored({ abc: 'yes' }), {});
  assert.deepEqual(stored([true]), {});
});

test('the next stream shows a camera that is not shown yet', () => {
  const cameras = ['a', 'b', 'c'].map((id) => ({ id, name: id }));
  assert.equal(nextCamera(cameras, ['']).id, 'a');
  assert.equal(nextCamera(cameras, ['a', 'c']).id, 'b');
  assert.equal(nextCamera(cameras, ['a', 'b', 'c']).id, 'a');
  assert.equal(nextCamera([], ['']), undefined);
});
