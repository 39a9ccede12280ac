// When a frame may be sent, which messages change that, and which images are closed.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { FlowControl, PING_AFTER_MS } from '../../../static/js/flow-control.js';
import { PendingFrames } from '../../../static/js/pending-frames.js';

function opened(win = 2, max_fps = null) {
  const flow = new FlowControl();
  flow.open({ win, max_fps }, 0);
  return flow;
}

test('frame n may be sent while n - ack <= win', () => {
  const flow = opened(2);
  assert.equal(flow.blockedBy(0, 0), null);
  assert.equal(flow.send(0), 1);
  assert.equal(flow.send(0), 2);
  assert.equal(flow.blockedBy(1, 0), 'window');
  flow.handleMessage({ type: 'result', ack: 1, win: 2 });
  assert.equal(flow.blockedBy(2, 0), null);
  assert.equal(flow.inFlight, 1);
});

test('no frame may be sent while the socket holds unsent bytes', () => {
  assert.equal(opened().blockedBy(0, 1), 'unsent');
});

test('window 0 puts the stream on hold, and a ping is due every five seconds', () => {
  const flow = opened();
  flow.handleMessage({ type: 'flow', win: 0, max_fps: null, reason: 'restarting' });
  assert.equal(flow.holdReason, 'restarting');
  assert.equal(flow.blockedBy(100, 0), 'hold');
  assert.equal(flow.takePingDue(PING_AFTER_MS), false);
  assert.equal(flow.takePingDue(100 + PING_AFTER_MS), true);
  assert.equal(flow.takePingDue(101 + PING_AFTER_MS), false);
  flow.handleMessage({ type: 'flow', win: 3, max_fps: null, reason: 'ready' });
  assert.equal(flow.holdReason, '');
  assert.equal(flow.blockedBy(9000, 0), null);
  assert.equal(flow.takePingDue(99999), false);
});

test('ack never decreases and never exceeds the last sent frame', () => {
  const flow = opened(4);
  for (let n = 0; n < 4; n++) flow.send(0);
  flow.handleMessage({ type: 'drop', ack: 3 });
  flow.handleMessage({ type: 'result', ack: 2 });
  assert.equal(flow.ack, 3);
  flow.handleMessage({ type: 'result', ack: 99 });
  assert.equal(flow.ack, 4);
});

test('after a reconnect, seq continues and no frame is in flight', () => {
  const flow = opened(2);
  flow.send(0);
  flow.send(0);
  flow.open({ win: 2, max_fps: null }, 50);
  assert.equal(flow.inFlight, 0);
  assert.equal(flow.blockedBy(50, 0), null);
  assert.equal(flow.send(50), 3);
});

test('the allowed rate is reached on average although the camera has another', () => {
  const flow = opened(8, 20);
  let sent = 0;
  for (let nowMs = 0; nowMs < 10000; nowMs += 1000 / 30) {
    if (flow.blockedBy(nowMs, 0) !== null) continue;
    flow.handleMessage({ type: 'result', ack: flow.send(nowMs) });
    sent += 1;
  }
  assert.ok(Math.abs(sent - 200) <= 2, `${sent} in 10 s`);
});

test('the lower of the two rates applies; null removes the limit of the server', () => {
  const flow = opened(8, 5);
  flow.targetFps = 10;
  flow.send(0);
  assert.equal(flow.blockedBy(150, 0), 'rate');
  flow.handleMessage({ type: 'flow', win: 8, max_fps: null });
  flow.send(200);
  assert.equal(flow.blockedBy(250, 0), 'rate');
  assert.equal(flow.blockedBy(310, 0), null);
});

test('images of acknowledged frames without a result are closed exactly once', () => {
  const frames = new PendingFrames();
  const closed = [];
  const image = (name) => ({ close: () => closed.push(name) });
  for (const seq of [1, 2, 3, 4]) frames.add(seq, { time: seq, image: image(seq) });
  assert.equal(frames.take(2).time, 2);
  assert.equal(frames.take(2), undefined);
  frames.acknowledge(3);
  assert.deepEqual(closed, [1, 3]);
  frames.clear();
  assert.deepEqual(closed, [1, 3, 4]);
  assert.equal(frames.size, 0);
});
