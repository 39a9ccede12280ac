// Keyboard shortcuts, announcements for screen readers, the wake lock, and the order of the themes.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { CountAnnouncements, describeCounts } from '../../../static/js/announcer.js';
import { SHORTCUTS, shortcutOf } from '../../../static/js/shortcuts.js';
import { nextTheme, THEMES } from '../../../static/js/theme.js';
import { WakeLock } from '../../../static/js/wake-lock.js';

/** A key press on an element that matches the selectors in `matching`. */
function press(key, matching = [], modifiers = {}) {
  const closest = (selector) => (selector.split(/,\s*(?![^(]*\))/).some((part) => matching.includes(part)) ? {} : null);
  return { key, ctrlKey: false, metaKey: false, altKey: false, ...modifiers, target: { closest } };
}

test('letters work on the page and on buttons, in either case, but not with a modifier or in a text field', () => {
  assert.equal(shortcutOf(press('M')).presses, '#mirror');
  assert.equal(shortcutOf(press('m', ['button'])).presses, '#mirror');
  assert.equal(shortcutOf(press('m', [], { ctrlKey: true })), null);
  assert.equal(shortcutOf(press('m', ['select'])), null);
  assert.equal(shortcutOf(press('m', ['dialog'])), null);
  assert.equal(shortcutOf(press('q')), null);
});

test('the space bar is left to the element that it activates, such as a checkbox', () => {
  assert.equal(shortcutOf(press(' ')).presses, '#pause');
  for (const selector of ['input', 'button', 'summary', 'a']) assert.equal(shortcutOf(press(' ', [selector])), null);
});

test('no key has two shortcuts', () => {
  assert.equal(new Set(SHORTCUTS.map(({ key }) => key)).size, SHORTCUTS.length);
});

test('the theme button visits every theme', () => {
  const visited = [THEMES[0], nextTheme(THEMES[0]), nextTheme(nextTheme(THEMES[0]))];
  assert.deepEqual(visited, THEMES);
  assert.equal(nextTheme(THEMES.at(-1)), THEMES[0]);
});

test('counts are announced once they have lasted, and then at most every ten seconds', () => {
  const announcements = new CountAnnouncements();
  assert.equal(announcements.update([], 0), null);
  assert.equal(announcements.update([['bus', 1]], 1000), null);
  assert.equal(announcements.update([['bus', 1]], 2900), null);
  assert.equal(announcements.update([['bus', 1]], 3000), 'bus: 1');
  assert.equal(announcements.update([['bus', 1]], 60000), null);
  assert.equal(announcements.update([['bus', 2]], 60100), null);
  assert.equal(announcements.update([['bus', 2]], 62100), 'bus: 2');
  assert.equal(announcements.update([], 63000), null);
  assert.equal(announcements.update([], 71000), null);
  assert.equal(announcements.update([], 72100), 'No objects');
});

test('a count that flickers is never announced', () => {
  const announcements = new CountAnnouncements();
  for (let nowMs = 0; nowMs < 30000; nowMs += 500) {
    assert.equal(announcements.update([['bus', (nowMs / 500) % 2]], nowMs), null);
  }
});

test('the most frequent classes are named, and the others counted', () => {
  assert.equal(describeCounts([['car', 1], ['bus', 0], ['person', 3]]), 'person: 3, car: 1');
  const many = ['a', 'b', 'c', 'd', 'e', 'f'].map((label) => [label, 1]);
  assert.equal(describeCounts(many), 'a: 1, b: 1, c: 1, d: 1, 2 more classes');
});

class FakeLock extends EventTarget {
  released = false;

  async release() {
    this.released = true;
    this.dispatchEvent(new Event('release'));
  }
}

test('the screen stays on while wanted, also after the tab was hidden', async () => {
  const page = Object.assign(new EventTarget(), { hidden: false });
  const locks = [];
  const api = { request: async () => locks[locks.push(new FakeLock()) - 1] };
  const wakeLock = new WakeLock(api, page);
  await wakeLock.set(true);
  await wakeLock.set(true);
  assert.equal(locks.length, 1);
  assert.ok(wakeLock.isHeld);
  page.hidden = true;
  await locks[0].release();
  page.dispatchEvent(new Event('visibilitychange'));
  assert.ok(!wakeLock.isHeld && locks.length === 1);
  page.hidden = false;
  page.dispatchEvent(new Event('visibilitychange'));
  await new Promise(setImmediate);
  assert.ok(wakeLock.isHeld && locks.length === 2);
  await wakeLock.set(false);
  assert.ok(locks[1].released && !wakeLock.isHeld);
});

test('a lock that arrives after the stream has stopped is released, and a refused one does no harm', async () => {
  const page = Object.assign(new EventTarget(), { hidden: false });
  const lock = new FakeLock();
  const wakeLock = new WakeLock({ request: async () => lock }, page);
  const requested = wakeLock.set(true);
  wakeLock.set(false);
  await requested;
  assert.ok(lock.released && !wakeLock.isHeld);
  const refused = new WakeLock({ request: async () => { throw new Error('low battery'); } }, page);
  await refused.set(true);
  assert.ok(!refused.isHeld);
  await new WakeLock(null, page).set(true);
});
