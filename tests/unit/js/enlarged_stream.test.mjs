// One stream of several is enlarged at a time, and none where there is only one.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { EnlargedStream } from '../../../static/js/enlarged-stream.js';

/** A child of the grid, with the parts of an element that are used. */
class FakeStream {
  constructor() {
    this.classes = new Set();
    this.classList = { toggle: (name, isSet) => (isSet ? this.classes.add(name) : this.classes.delete(name)) };
    this.button = { hidden: true, title: '', setAttribute: (_, value) => (this.pressed = value) };
    this.shown = 0;
  }

  contains(element) {
    return element?.stream === this;
  }

  querySelector(selector) {
    assert.equal(selector, '.enlarge');
    return this.button;
  }

  scrollIntoView() {
    this.shown += 1;
  }

  get isEnlarged() {
    return this.classes.has('enlarged');
  }
}

class FakeGrid extends EventTarget {
  constructor(...children) {
    super();
    this.children = children;
    this.attributes = new Set();
  }

  contains(stream) {
    return this.children.includes(stream);
  }

  toggleAttribute(name, isSet) {
    if (isSet) this.attributes.add(name);
    else this.attributes.delete(name);
  }

  /** Press something in a stream that matches one selector. */
  press(stream, selector = '.enlarge', type = 'click') {
    const target = { stream, closest: (wanted) => (wanted.split(', ').includes(selector) ? {} : null) };
    this.dispatchEvent(Object.defineProperty(new Event(type), 'target', { value: target }));
  }
}

function threeStreams() {
  const streams = [new FakeStream(), new FakeStream(), new FakeStream()];
  const grid = new FakeGrid(...streams);
  const enlarged = new EnlargedStream(grid);
  enlarged.update();
  return { streams, grid, enlarged };
}

test('a button enlarges its stream in place of another, and puts it back', () => {
  const { streams, grid } = threeStreams();
  assert.equal(streams[0].button.hidden, false);
  grid.press(streams[1], 'video');
  assert.ok(!streams[1].isEnlarged);
  grid.press(streams[1]);
  grid.press(streams[2]);
  assert.deepEqual(streams.map(({ isEnlarged }) => isEnlarged), [false, false, true]);
  assert.deepEqual([streams[1].pressed, streams[2].pressed, streams[2].shown], ['false', 'true', 1]);
  assert.ok(grid.attributes.has('data-enlarged'));
  grid.press(streams[2]);
  assert.ok(!streams[2].isEnlarged && !grid.attributes.has('data-enlarged'));
});

test('a double click on the picture does the same, except on the start view', () => {
  const { streams, grid } = threeStreams();
  grid.press(streams[0], '.start', 'dblclick');
  assert.ok(!streams[0].isEnlarged);
  grid.press(streams[0], '.stage[data-phase=running]', 'dblclick');
  assert.ok(streams[0].isEnlarged);
});

test('a stream that ends or is removed is enlarged no longer, and a single one has no button', () => {
  const { streams, grid, enlarged } = threeStreams();
  grid.press(streams[0]);
  enlarged.release(streams[1]);
  assert.ok(streams[0].isEnlarged);
  enlarged.release(streams[0]);
  assert.ok(!streams[0].isEnlarged);
  grid.press(streams[2]);
  grid.children.pop();
  enlarged.update();
  assert.ok(!streams[2].isEnlarged && !grid.attributes.has('data-enlarged'));
  grid.press(streams[0]);
  grid.children.pop();
  enlarged.update();
  assert.ok(!streams[0].isEnlarged && streams[0].button.hidden);
  grid.press(streams[0], '.stage[data-phase=running]', 'dblclick');
  assert.ok(!streams[0].isEnlarged);
});
