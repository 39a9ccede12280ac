// Connects the two transports with the parts of the page that they serve.

import { Transport } from './transport.js';
import { WebRtcConnection } from './webrtc-connection.js';
import { WebSocketConnection } from './websocket-connection.js';

/**
 * @param {object} app see app.js; its parts are read when they are needed, not now
 * @param {URLSearchParams} query parameters of the page's URL
 * @returns {Transport}
 */
export function createTransport(app, query) {
  const common = {
    key: () => app.key,
    onMessage: (message) => app.handleMessage(message),
    onState: (state) => app.handleConnectionState(state),
  };
  const webSocket = new WebSocketConnection({
    ...common,
    makeHello: (resume, token) => app.sessionOptions.hello(token, resume),
    expectsMessage: () => app.pipeline.flow.inFlight > 0 || app.pipeline.flow.isOnHold,
    takePingDue: (nowMs) => app.pipeline.flow.takePingDue(nowMs),
    acks: () => ({ 0: app.pipeline.flow.ack }),
  });
  const webRtc = new WebRtcConnection({
    ...common,
    sessionOptions: () => app.sessionOptions.shared,
    mediaStream: () => app.playback.mediaStream,
    // Only from the URL, for tests of TURN servers: a stored setting would break WebRTC where there is none.
    icePolicy: query.get('ice') === 'relay' ? 'relay' : 'all',
    onFrameEncoded: (frame) => app.pipeline.handleEncodedFrame(frame),
    onUnavailable: (reason) => app.transport.fallBack(reason),
  });
  return new Transport(webSocket, webRtc, () => app.settings.transport);
}
