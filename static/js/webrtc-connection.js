// Sends the video source over WebRTC: negotiates, receives results on data channels, and explains why it fails.

import { authorizationHeaders, KeyRejectedError } from './authentication.js';
import { Backoff } from './backoff.js';
import { explainBye } from './protocol.js';
import { RtpClock } from './rtp-clock.js';
import { IceErrors, networkQuality } from './webrtc-diagnostics.js';

/** Long enough for any network that lets UDP through, even with a distant TURN server. */
const CONNECT_TIMEOUT_MS = 8000;
/** TURN candidates arrive late. An offer that already has other candidates does not wait longer for them. */
const GATHER_MS = 2000;
const STATISTICS_INTERVAL_MS = 1000;
/** How long the connection may be `disconnected` before the page opens a new one. */
const DISCONNECTED_TIMEOUT_MS = 3000;
const CONNECTION_LOST = 'The WebRTC connection was lost';

/** WebRTC does not work with this browser, network or server. `message` explains it to the user. */
class WebRtcUnavailableError extends Error {}

export class WebRtcConnection {
  /**
   * @param {object} owner
   * @param {() => object} owner.sessionOptions returns `streams`, `params` and `collect` of the offer
   * @param {() => string} owner.key API key; empty: none
   * @param {() => MediaStream | null} owner.mediaStream the video to send
   * @param {RTCIceTransportPolicy} owner.icePolicy `relay`: only through TURN servers
   * @param {(message: object) => void} owner.onMessage receives every message except `bye`
   * @param {(state: import('./websocket-connection.js').ConnectionState) => void} owner.onState
   * @param {(frame: {bytes: number, width: number, height: number}) => void} owner.onFrameEncoded
   * @param {(reason: string) => void} owner.onUnavailable WebRTC does not work; another transport must take over
   */
  constructor(owner) {
    this._owner = owner;
    this._backoff = new Backoff();
    this._peer = null;
    this._sender = null;
    this._control = null;
    this._encodedFrameWorker = null;
    /** URL of the session on the server; empty while there is none. */
    this._sessionUrl = '';
    this._version = '';
    this._timer = null;
    this._disconnectedTimer = null;
    this._isHidden = false;
    /** Bytes sent at the last measurement, for the bit rate. */
    this._lastSent = null;
    this._iceErrors = new IceErrors();
    /** Changes with each attempt, so that asynchronous work for an earlier attempt can be discarded. */
    this.generation = 0;
    /** How many sessions were opened. Tests and the console read it. */
    this.sessionsOpened = 0;
    /** @type {import('./websocket-connection.js').ConnectionState} */
    this.state = { name: 'idle' };
    this.clock = new RtpClock();
    /** @type {import('./webrtc-diagnostics.js').NetworkQuality | null} null until it was measured */
    this.quality = null;
    setInterval(() => this._measure(), STATISTICS_INTERVAL_MS);
  }

  get isOpen() {
    return this.state.name === 'open';
  }

  /** Connect to a model version; an open connection is closed first. */
  open(version) {
    this._version = version;
    this._backoff.reset();
    this._deleteSession();
    this._connect();
  }

  close() {
    this._deleteSession();
    this._setState({ name: 'idle' });
  }

  /** Start the next attempt immediately. */
  retryNow() {
    if (this.state.name === 'waiting') this._connect();
  }

  /** Set whether the tab is hidden. A connection lost while it is hidden is opened again when it becomes visible. */
  setHidden(isHidden) {
    this._isHidden = isHidden;
    if (!isHidden && this.state.name === 'waiting' && this.state.retryAtMs === Infinity) this._connect();
  }

  /** Send the track of the present video source from now on. */
  async replaceSource() {
    const track = this._owner.mediaStream()?.getVideoTracks()[0];
    if (!this._sender || !track || this._sender.track === track) return;
    try {
      await this._sender.replaceTrack(track);
    } catch {
      this.open(this._version);
    }
  }

  /** Send a control message. It is discarded while the connection is not open. */
  send(message) {
    if (this._control?.readyState === 'open') this._control.send(JSON.stringify(message));
  }

  async _connect() {
    clearTimeout(this._timer);
    const generation = ++this.generation;
    this._setState({ name: 'connecting' });
    try {
      await this._negotiate(generation);
    } catch (error) {
      if (generation !== this.generation) return;
      this._closePeer();
      if (error instanceof KeyRejectedError) {
        this._setState({ name: 'keyRequired', reason: error.message });
        return;
      }
      const isExplained = error instanceof WebRtcUnavailableError;
      this._owner.onUnavailable(isExplained ? error.message : `the browser reports: ${error.message}`);
    }
  }

  async _negotiate(generation) {
    if (typeof RTCPeerConnection === 'undefined') throw new WebRtcUnavailableError('this browser has no WebRTC');
    const track = this._owner.mediaStream()?.getVideoTracks()[0];
    if (!track) throw new WebRtcUnavailableError('this browser cannot send this source as video');
    const description = await this._request('GET', this._endpoint());
    if (generation !== this.generation) return;
    const peer = this._createPeer(description.ice_servers, generation);
    this._sender = peer.addTransceiver(track, { direction: 'sendonly' }).sender;
    this._observeEncodedFrames(this._sender);
    await peer.setLocalDescription();
    await candidatesGathered(peer);
    if (generation !== this.generation) return;
    // The server could not connect to an offer without candidates.
    if (!hasCandidates(peer)) throw new WebRtcUnavailableError(this._noPathReason());
    const offer = { type: 'offer', sdp: peer.localDescription.sdp, ...this._owner.sessionOptions() };
    const answer = await this._request('POST', this._endpoint(), offer);
    if (generation !== this.generation) {
      this._request('DELETE', answer.url).catch(() => {});
      return;
    }
    this._sessionUrl = answer.url;
    peer.onconnectionstatechange = () => this._handlePeerState(generation);
    this._timer = setTimeout(() => this._fail(generation), CONNECT_TIMEOUT_MS);
    await peer.setRemoteDescription({ type: 'answer', sdp: answer.sdp });
  }

  _createPeer(iceServers, generation) {
    const peer = new RTCPeerConnection({
      iceServers,
      iceTransportPolicy: this._owner.icePolicy,
      bundlePolicy: 'max-bundle',
    });
    this._peer = peer;
    this._iceErrors = new IceErrors();
    peer.onicecandidateerror = (event) => generation === this.generation && this._iceErrors.add(event);
    this.clock = new RtpClock();
    const results = peer.createDataChannel('results', { ordered: false, maxRetransmits: 0 });
    this._control = peer.createDataChannel('control');
    for (const channel of [results, this._control]) {
      channel.onmessage = ({ data }) => {
        if (generation === this.generation) this._handleMessage(JSON.parse(data));
      };
    }
    return peer;
  }

  _observeEncodedFrames(sender) {
    if (typeof RTCRtpScriptTransform === 'undefined') return;
    this._encodedFrameWorker ??= new Worker(new URL('./encoded-frame-worker.js', import.meta.url));
    this._encodedFrameWorker.onmessage = ({ data }) => {
      this.clock.addEncodedFrame(data.rtp, data.atMs - performance.timeOrigin);
      this._owner.onFrameEncoded(data);
    };
    sender.transform = new RTCRtpScriptTransform(this._encodedFrameWorker);
  }

  _handleMessage(message) {
    if (message.type === 'bye') {
      this._reconnectLater(explainBye(message, message.reason), message.reconnect_ms);
    } else if (message.type === 'welcome') {
      clearTimeout(this._timer);
      this._backoff.reset();
      this.sessionsOpened += 1;
      this._owner.onMessage(message);
      this._setState({ name: 'open' });
    } else {
      this._owner.onMessage(message);
    }
  }

  _handlePeerState(generation) {
    if (generation !== this.generation) return;
    const { connectionState } = this._peer;
    clearTimeout(this._disconnectedTimer);
    if (connectionState === 'disconnected' && this.isOpen) {
      // The network may recover, but a server that has died does not.
      this._disconnectedTimer = setTimeout(() => {
        if (generation === this.generation) this._reconnectLater(CONNECTION_LOST);
      }, DISCONNECTED_TIMEOUT_MS);
      return;
    }
    if (connectionState !== 'failed' && connectionState !== 'closed') return;
    if (this.isOpen) this._reconnectLater(CONNECTION_LOST);
    else this._fail(generation);
  }

  /** The connection was not established: find out why, and leave the frames to another transport. */
  async _fail(generation) {
    if (generation !== this.generation) return;
    let reason = hasCandidates(this._peer) ? this._blockedReason() : this._noPathReason();
    try {
      // The server may know the reason. The browser only knows that no packet arrived.
      const session = await this._request('GET', this._sessionUrl);
      if (session.reason) reason = session.reason.text;
    } catch {
      // Keep the browser's reason.
    }
    if (generation !== this.generation) return;
    this._deleteSession();
    this._owner.onUnavailable(reason);
  }

  _blockedReason() {
    const blocked = 'UDP packets do not reach the server';
    return this._iceErrors.message ? `${blocked}, and ${this._iceErrors.message}` : blocked;
  }

  _noPathReason() {
    return this._iceErrors.message || 'the browser found no network path: no TURN server responded';
  }

  /**
   * An established connection has ended: open a new one later.
   * @param {string} reason message for the user
   * @param {number} [delayMs] delay that the server asked for; absent: from the back-off
   */
  _reconnectLater(reason, delayMs) {
    this._closePeer();
    const waitMs = this._isHidden ? Infinity : (delayMs ?? this._backoff.next());
    if (waitMs !== Infinity) this._timer = setTimeout(() => this._connect(), waitMs);
    this._setState({ name: 'waiting', retryAtMs: performance.now() + waitMs, reason });
  }

  async _measure() {
    if (!this.isOpen || !this._peer) return;
    const { generation } = this;
    const report = await this._peer.getStats();
    if (generation !== this.generation) return;
    const { sent, ...quality } = networkQuality(report.values(), this._lastSent);
    this._lastSent = sent;
    this.quality = quality;
  }

  _endpoint() {
    return new URL(`${this._version}/webrtc`, document.baseURI).href;
  }

  async _request(method, url, body) {
    const key = this._owner.key();
    const headers = { ...(body && { 'Content-Type': 'application/json' }), ...authorizationHeaders(key) };
    // `keepalive` lets the request complete although the page is being closed.
    const options = { method, headers, body: body && JSON.stringify(body), keepalive: method === 'DELETE' };
    let response;
    try {
      response = await fetch(url, options);
    } catch {
      throw new WebRtcUnavailableError('the server does not respond');
    }
    const text = await response.text();
    const parsed = text ? JSON.parse(text) : {};
    if (response.status === 401) throw new KeyRejectedError(parsed.detail);
    if (!response.ok) {
      throw new WebRtcUnavailableError(parsed.detail ?? `the server returned status ${response.status}`);
    }
    return parsed;
  }

  _deleteSession() {
    if (this._sessionUrl) this._request('DELETE', this._sessionUrl).catch(() => {});
    this._closePeer();
  }

  /** Close the peer connection and ignore its further events. */
  _closePeer() {
    clearTimeout(this._timer);
    clearTimeout(this._disconnectedTimer);
    this.generation += 1;
    const peer = this._peer;
    this._peer = this._sender = this._control = this.quality = this._lastSent = null;
    this._sessionUrl = '';
    if (peer) {
      peer.onconnectionstatechange = peer.onicecandidateerror = null;
      peer.close();
    }
  }

  _setState(state) {
    this.state = state;
    this._owner.onState(state);
  }
}

function hasCandidates(peer) {
  return peer.localDescription.sdp.includes('a=candidate');
}

/**
 * Resolve when the offer has enough candidates: all of them, or those gathered within GATHER_MS. If there are none by
 * then, because a TURN server responds slowly, wait for the first one, until CONNECT_TIMEOUT_MS at most.
 * @param {RTCPeerConnection} peer
 * @returns {Promise<void>}
 */
function candidatesGathered(peer) {
  if (peer.iceGatheringState === 'complete') return Promise.resolve();
  return new Promise((resolve) => {
    let oneIsEnough = false;
    const timers = [
      setTimeout(() => {
        oneIsEnough = true;
        check();
      }, GATHER_MS),
      setTimeout(finish, CONNECT_TIMEOUT_MS),
    ];
    function check() {
      if (peer.iceGatheringState === 'complete' || (oneIsEnough && hasCandidates(peer))) finish();
    }
    function finish() {
      timers.forEach(clearTimeout);
      resolve();
    }
    peer.addEventListener('icegatheringstatechange', check);
    peer.addEventListener('icecandidate', check);
  });
}
