// Matching of results to frames by RTP timestamps, and diagnostics of the network.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { PendingVideoFrames } from '../../../static/js/pending-frames.js';
import { RtpClock } from '../../../static/js/rtp-clock.js';
import { IceErrors, networkQuality } from '../../../static/js/webrtc-diagnostics.js';

test('RTP timestamps are converted to capture times, with a varying encoder delay and across the wrap', () => {
  const clock = new RtpClock();
  assert.equal(clock.toMs(5), null);
  const start = 2 ** 32 - 9000; // wraps after 100 ms
  const rtpAt = (ms) => (start + ms * 90) % 2 ** 32;
  for (let frame = 0; frame < 30; frame += 1) {
    const capturedMs = 1000 + frame * 33;
    const delayMs = 4 + (frame % 3) * 20;
    clock.addEncodedFrame(rtpAt(frame * 33), capturedMs + delayMs);
  }
  for (const frame of [0, 3, 10, 29]) {
    assert.ok(Math.abs(clock.toMs(rtpAt(frame * 33)) - (1000 + frame * 33) - 4) < 0.01);
  }
});

test('the nearest frame is returned, and older ones are forgotten and their images closed', () => {
  const frames = new PendingVideoFrames();
  const closed = [];
  for (let n = 0; n < 5; n += 1) frames.add({ mediaMs: n * 33, image: { close: () => closed.push(n) } });
  assert.equal(frames.take(70, 16).mediaMs, 66);
  assert.deepEqual(closed, [0, 1]);
  assert.equal(frames.take(1, 16), undefined);
  assert.equal(frames.take(115.5, 16), undefined);
  assert.equal(frames.size, 2);
  frames.clear();
  assert.deepEqual(closed, [0, 1, 3, 4]);
});

test('the number of kept images is bounded when no results arrive', () => {
  const frames = new PendingVideoFrames();
  let open = 0;
  for (let n = 0; n < 500; n += 1) {
    open += 1;
    frames.add({ mediaMs: n, image: { close: () => (open -= 1) } });
  }
  assert.ok(open <= 30);
});

test('the network quality follows from the statistics of the browser', () => {
  const stats = [
    { id: 'a', type: 'outbound-rtp', kind: 'video', bytesSent: 225000, timestamp: 2000, codecId: 'c' },
    { id: 'b', type: 'remote-inbound-rtp', kind: 'video', roundTripTime: 0.012, fractionLost: 0.03 },
    { id: 'c', type: 'codec', mimeType: 'video/VP8' },
    { id: 'd', type: 'candidate-pair', state: 'succeeded', nominated: true, localCandidateId: 'e' },
    { id: 'e', type: 'local-candidate', candidateType: 'relay' },
  ];
  const { sent, ...quality } = networkQuality(stats, { bytes: 100000, atMs: 1000 });
  assert.deepEqual(quality, { rttMs: 12, lossShare: 0.03, kbps: 1000, codec: 'VP8', path: 'relay' });
  assert.deepEqual(sent, { bytes: 225000, atMs: 2000 });
  assert.deepEqual(networkQuality([], null), {
    rttMs: null, lossShare: null, kbps: null, codec: '', path: '', sent: null,
  });
});

test('each STUN or TURN server has one message, and a rejection takes precedence', () => {
  const errors = new IceErrors();
  assert.equal(errors.message, '');
  errors.add({ url: 'turn:turn.example:3478?transport=udp', errorCode: 701 });
  assert.equal(errors.message, 'the TURN server turn.example:3478 does not respond');
  errors.add({ url: 'turn:turn.example:3478?transport=udp', errorCode: 401 });
  errors.add({ url: 'turn:turn.example:3478?transport=tcp', errorCode: 701 });
  errors.add({ url: 'stun:stun.example:3478', errorCode: 701 });
  assert.equal(
    errors.message,
    'the TURN server turn.example:3478 rejects the credentials (401: check that TURN_SECRET is the secret of this server), ' +
      'and the STUN server stun.example:3478 does not respond',
  );
  const full = new IceErrors();
  full.add({ url: 'turns:turn.example:5349', errorCode: 486 });
  assert.equal(full.message, 'the TURN server turn.example:5349 accepts no more clients (486)');
});
