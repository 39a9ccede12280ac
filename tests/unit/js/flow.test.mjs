// The window, the ack and the rate: when a frame may go, and what each message changes.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Flow, PING_AFTER_MS } from '../../../static/js/flow.js';
import { InFlight } from '../../../static/js/in-flight.js';

function opened(win = 2, max_fps = null) {
  const flow = new Flow();
  flow.open({ win, max_fps }, 0);
  return flow;
}

test('frame n goes while n - ack <= win', () => {
  const flow = opened(2);
  assert.equal(flow.refusal(0, 0), null);
  assert.equal(flow.send(0), 1);
  assert.equal(flow.send(0), 2);
  assert.equal(flow.refusal(1, 0), 'window');
  flow.heard({ type: 'result', ack: 1, win: 2 });
  assert.equal(flow.refusal(2, 0), null);
  assert.equal(flow.inFlight, 1);
});

test('nothing goes while something of its own is unsent', () => {
  assert.equal(opened().refusal(0, 1), 'unsent');
});

test('window 0 holds, and a ping is due once per five seconds', () => {
  const flow = opened();
  flow.heard({ type: 'flow', win: 0, max_fps: null, reason: 'restarting' });
  assert.equal(flow.holdReason, 'restarting');
  assert.equal(flow.refusal(100, 0), 'hold');
  assert.equal(flow.takePing(PING_AFTER_MS), false);
  assert.equal(flow.takePing(100 + PING_AFTER_MS), true);
  assert.equal(flow.takePing(101 + PING_AFTER_MS), false);
  flow.heard({ type: 'flow', win: 3, max_fps: null, reason: 'ready' });
  assert.equal(flow.holdReason, '');
  assert.equal(flow.refusal(9000, 0), null);
  assert.equal(flow.takePing(99999), false);
});

test('an ack never goes back and never passes what was sent', () => {
  const flow = opened(4);
  for (let n = 0; n < 4; n++) flow.send(0);
  flow.heard({ type: 'drop', ack: 3 });
  flow.heard({ type: 'result', ack: 2 });
  assert.equal(flow.ack, 3);
  flow.heard({ type: 'result', ack: 99 });
  assert.equal(flow.ack, 4);
});

test('after a reconnect seq goes on and nothing is in flight', () => {
  const flow = opened(2);
  flow.send(0);
  flow.send(0);
  flow.open({ win: 2, max_fps: null }, 50);
  assert.equal(flow.inFlight, 0);
  assert.equal(flow.refusal(50, 0), null);
  assert.equal(flow.send(50), 3);
});

test('a granted rate is kept on average although camera frames come at another', () => {
  const flow = opened(8, 20);
  let sent = 0;
  for (let nowMs = 0; nowMs < 10000; nowMs += 1000 / 30) {
    if (flow.refusal(nowMs, 0) !== null) continue;
    flow.heard({ type: 'result', ack: flow.send(nowMs) });
    sent += 1;
  }
  assert.ok(Math.abs(sent - 200) <= 2, `${sent} in 10 s`);
});

test('the lower of the two rates counts; null lifts the server\'s', () => {
  const flow = opened(8, 5);
  flow.ownFps = 10;
  flow.send(0);
  assert.equal(flow.refusal(150, 0), 'rate');
  flow.heard({ type: 'flow', win: 8, max_fps: null });
  flow.send(200);
  assert.equal(flow.refusal(250, 0), 'rate');
  assert.equal(flow.refusal(310, 0), null);
});

test('pictures of frames without a result are closed exactly once', () => {
  const frames = new InFlight();
  const closed = [];
  const image = (name) => ({ close: () => closed.push(name) });
  for (const seq of [1, 2, 3, 4]) frames.add(seq, { capturedMs: seq, image: image(seq) });
  assert.equal(frames.take(2).capturedMs, 2);
  assert.equal(frames.take(2), undefined);
  frames.settle(3);
  assert.deepEqual(closed, [1, 3]);
  frames.clear();
  assert.deepEqual(closed, [1, 3, 4]);
  assert.equal(frames.size, 0);
});
