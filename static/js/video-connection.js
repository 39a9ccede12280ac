// The source as video over WebRTC: offer, answer, data channels, and why it does not work where it does not.

import { Backoff } from './backoff.js';
import { IceProblems } from './ice-problems.js';
import { lineQuality } from './line-quality.js';
import { RtpClock } from './rtp-clock.js';
import { authorization } from './ticket.js';

/** What a network that lets UDP through needs at most, with a TURN server that is far away. */
const CONNECT_TIMEOUT_MS = 8000;
/** Candidates of TURN servers come late; an offer that has others does not wait longer for them. */
const GATHER_MS = 2000;
const QUALITY_EVERY_MS = 1000;
/** How long nothing may come through before a new connection is tried. */
const DISCONNECTED_MS = 3000;
const LOST = 'The way to the server was lost';

/** WebRTC does not work here; `message` says why, in words for a person. */
class Unusable extends Error {}
/** The server wants a key, or another one. */
class KeyNeeded extends Error {}

export class VideoConnection {
  /**
   * @param {object} owner
   * @param {() => object} owner.makeWishes parameters, name of the stream, whether frames may be kept
   * @param {() => string} owner.key API key; empty: none
   * @param {() => MediaStream | null} owner.makeStream what to send
   * @param {RTCIceTransportPolicy} owner.icePolicy `relay`: over TURN servers only
   * @param {(message: object) => void} owner.onMessage every message but `bye`
   * @param {(state: import('./connection.js').ConnectionState) => void} owner.onState
   * @param {(frame: {bytes: number, width: number, height: number}) => void} owner.onEncoded
   * @param {(reason: string) => void} owner.onUnusable WebRTC does not work; somebody else must carry the frames
   */
  constructor(owner) {
    this._owner = owner;
    this._backoff = new Backoff();
    this._peer = null;
    this._sender = null;
    this._control = null;
    this._worker = null;
    this._url = '';
    this._version = '';
    this._timer = null;
    this._patience = null;
    this._asleep = false;
    this._sent = null;
    this._problems = new IceProblems();
    /** Rises with each attempt: work begun for an older one is void. */
    this.generation = 0;
    this.opened = 0;
    this.state = { name: 'idle' };
    this.clock = new RtpClock();
    /** @type {import('./line-quality.js').LineQuality | null} */
    this.quality = null;
    setInterval(() => this._measure(), QUALITY_EVERY_MS);
  }

  get isOpen() {
    return this.state.name === 'open';
  }

  open(version) {
    this._version = version;
    this._backoff.reset();
    this._leave();
    this._connect();
  }

  close() {
    this._leave();
    this._become({ name: 'idle' });
  }

  retryNow() {
    if (this.state.name === 'waiting') this._connect();
  }

  /** A hidden tab does not come back to a lost connection; waking up does. */
  sleep(asleep) {
    this._asleep = asleep;
    if (!asleep && this.state.name === 'waiting' && this.state.retryAtMs === Infinity) this._connect();
  }

  /** Another source plays: send that one from now on. */
  async replaceSource() {
    const track = this._owner.makeStream()?.getVideoTracks()[0];
    if (!this._sender || !track || this._sender.track === track) return;
    try {
      await this._sender.replaceTrack(track);
    } catch {
      this.open(this._version);
    }
  }

  send(message) {
    if (this._control?.readyState === 'open') this._control.send(JSON.stringify(message));
  }

  async _connect() {
    clearTimeout(this._timer);
    const generation = ++this.generation;
    this._become({ name: 'connecting' });
    try {
      await this._negotiate(generation);
    } catch (error) {
      if (generation !== this.generation) return;
      this._drop();
      if (error instanceof KeyNeeded) this._become({ name: 'key', reason: error.message });
      else this._owner.onUnusable(error instanceof Unusable ? error.message : `the browser says: ${error.message}`);
    }
  }

  async _negotiate(generation) {
    if (typeof RTCPeerConnection === 'undefined') throw new Unusable('this browser has no WebRTC');
    const track = this._owner.makeStream()?.getVideoTracks()[0];
    if (!track) throw new Unusable('this browser cannot send this source as video');
    const description = await this._request('GET', this._address());
    if (generation !== this.generation) return;
    const peer = new RTCPeerConnection({
      iceServers: description.ice_servers,
      iceTransportPolicy: this._owner.icePolicy,
      bundlePolicy: 'max-bundle',
    });
    this._peer = peer;
    this._problems = new IceProblems();
    peer.onicecandidateerror = (event) => generation === this.generation && this._problems.add(event);
    this.clock = new RtpClock();
    this._openChannels(peer, generation);
    const transceiver = peer.addTransceiver(track, { direction: 'sendonly' });
    this._sender = transceiver.sender;
    this._watchEncoder(transceiver.sender);
    await peer.setLocalDescription();
    await gathered(peer);
    if (generation !== this.generation) return;
    // The server cannot reach an offer without candidates.
    if (!hasPath(peer)) throw new Unusable(this._noPath());
    const offer = { type: 'offer', sdp: peer.localDescription.sdp, ...this._owner.makeWishes() };
    const answer = await this._request('POST', this._address(), offer);
    if (generation !== this.generation) {
      this._request('DELETE', answer.url).catch(() => {});
      return;
    }
    this._url = answer.url;
    peer.onconnectionstatechange = () => this._stateChanged(generation);
    this._timer = setTimeout(() => this._timedOut(generation), CONNECT_TIMEOUT_MS);
    await peer.setRemoteDescription({ type: 'answer', sdp: answer.sdp });
  }

  _openChannels(peer, generation) {
    const results = peer.createDataChannel('results', { ordered: false, maxRetransmits: 0 });
    this._control = peer.createDataChannel('control');
    for (const channel of [results, this._control]) {
      channel.onmessage = ({ data }) => {
        if (generation === this.generation) this._receive(JSON.parse(data));
      };
    }
  }

  _watchEncoder(sender) {
    if (typeof RTCRtpScriptTransform === 'undefined') return;
    this._worker ??= new Worker(new URL('./encoded-frames-worker.js', import.meta.url));
    this._worker.onmessage = ({ data }) => {
      this.clock.encoded(data.rtp, data.atMs - performance.timeOrigin);
      this._owner.onEncoded(data);
    };
    sender.transform = new RTCRtpScriptTransform(this._worker);
  }

  _receive(message) {
    if (message.type === 'bye') {
      this._lost(message.reason, message.reconnect_ms);
    } else if (message.type === 'welcome') {
      clearTimeout(this._timer);
      this._backoff.reset();
      this.opened += 1;
      this._owner.onMessage(message);
      this._become({ name: 'open' });
    } else {
      this._owner.onMessage(message);
    }
  }

  _stateChanged(generation) {
    if (generation !== this.generation) return;
    const { connectionState } = this._peer;
    clearTimeout(this._patience);
    if (connectionState === 'disconnected' && this.isOpen) {
      // It may come back by itself; a server that died does not.
      this._patience = setTimeout(() => generation === this.generation && this._lost(LOST), DISCONNECTED_MS);
      return;
    }
    if (connectionState !== 'failed' && connectionState !== 'closed') return;
    if (this.isOpen) this._lost(LOST);
    else this._timedOut(generation);
  }

  /** The server may know why; the browser only knows that nothing came. */
  async _timedOut(generation) {
    if (generation !== this.generation) return;
    let reason = hasPath(this._peer) ? this._blocked() : this._noPath();
    try {
      const { reason: told } = await this._request('GET', this._url);
      if (told) reason = told.text;
    } catch {
      // Then what we know ourselves must do.
    }
    if (generation !== this.generation) return;
    this._leave();
    this._owner.onUnusable(reason);
  }

  _blocked() {
    const blocked = 'packets (UDP) do not get through to the server';
    return this._problems.text ? `${blocked}, and ${this._problems.text}` : blocked;
  }

  _noPath() {
    return this._problems.text || 'the browser found no network path: no TURN server has answered';
  }

  /** It has worked: try again, after a while, or when the server asks for it. */
  _lost(reason, askedMs) {
    this._drop();
    const pauseMs = this._asleep ? Infinity : (askedMs ?? this._backoff.next());
    if (pauseMs !== Infinity) this._timer = setTimeout(() => this._connect(), pauseMs);
    this._become({ name: 'waiting', retryAtMs: performance.now() + pauseMs, reason });
  }

  async _measure() {
    if (!this.isOpen || !this._peer) return;
    const { generation } = this;
    const report = await this._peer.getStats();
    if (generation !== this.generation) return;
    const { sent, ...quality } = lineQuality(report.values(), this._sent);
    this._sent = sent;
    this.quality = quality;
  }

  _address() {
    return new URL(`${this._version}/webrtc`, document.baseURI).href;
  }

  async _request(method, url, body) {
    const key = this._owner.key();
    const headers = { ...(body && { 'Content-Type': 'application/json' }), ...authorization(key) };
    let response;
    try {
      response = await fetch(url, { method, headers, body: body && JSON.stringify(body), keepalive: method === 'DELETE' });
    } catch {
      throw new Unusable('the server does not answer');
    }
    const text = await response.text();
    const parsed = text ? JSON.parse(text) : {};
    if (response.status === 401) throw new KeyNeeded(parsed.detail);
    if (!response.ok) throw new Unusable(parsed.detail ?? `the server answers ${response.status}`);
    return parsed;
  }

  _leave() {
    if (this._url) this._request('DELETE', this._url).catch(() => {});
    this._drop();
  }

  /** Forget the connection: nothing it still says is heard. */
  _drop() {
    clearTimeout(this._timer);
    clearTimeout(this._patience);
    this.generation += 1;
    const peer = this._peer;
    this._peer = this._sender = this._control = this.quality = this._sent = null;
    this._url = '';
    if (peer) {
      peer.onconnectionstatechange = peer.onicecandidateerror = null;
      peer.close();
    }
  }

  _become(state) {
    this.state = state;
    this._owner.onState(state);
  }
}

function hasPath(peer) {
  return peer.localDescription.sdp.includes('a=candidate');
}

/**
 * Resolves when the browser has gathered its candidates. After GATHER_MS those that are there are enough; where there is
 * none yet, because a TURN server is slow to answer, it waits for the first one, for CONNECT_TIMEOUT_MS at most.
 */
function gathered(peer) {
  if (peer.iceGatheringState === 'complete') return Promise.resolve();
  return new Promise((resolve) => {
    let enough = false;
    const timers = [
      setTimeout(() => {
        enough = true;
        check();
      }, GATHER_MS),
      setTimeout(done, CONNECT_TIMEOUT_MS),
    ];
    function check() {
      if (peer.iceGatheringState === 'complete' || (enough && hasPath(peer))) done();
    }
    function done() {
      timers.forEach(clearTimeout);
      resolve();
    }
    peer.addEventListener('icegatheringstatechange', check);
    peer.addEventListener('icecandidate', check);
  });
}
