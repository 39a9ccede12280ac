// The WebSocket's life: hello, reconnecting with back-off, silence, goodbye. What it carries is the pipeline's.

import { Backoff } from './backoff.js';
import { fetchHealth } from './health.js';
import { afterClose, CODE_IDLE, CODE_UNAUTHORIZED, streamUrl, SUBPROTOCOL } from './protocol.js';
import { KeyRefused } from './ticket.js';

/** Silence after which a server that owes answers is asked for a sign of life, and given up. */
const ASK_AFTER_MS = 5000;
const GIVE_UP_AFTER_MS = 12000;
const CONNECT_TIMEOUT_MS = 10000;

/**
 * @typedef {object} ConnectionState
 * @property {'idle' | 'connecting' | 'open' | 'waiting' | 'key' | 'stopped'} name
 * @property {string} [reason] why it waits or stopped, in words
 * @property {number} [retryAtMs] when the next attempt starts (performance.now)
 * @property {number} [code] close code
 */

export class Connection {
  /**
   * @param {object} owner
   * @param {() => Promise<string>} owner.takeToken what the hello shows; empty where there is no key
   * @param {(resume: object | null, token: string) => object} owner.makeHello
   * @param {(message: object) => void} owner.onMessage every message but `bye`, `welcome` included
   * @param {(state: ConnectionState) => void} owner.onState
   * @param {() => boolean} owner.expecting whether the server owes the page an answer
   * @param {(nowMs: number) => boolean} owner.takePing whether the window was shut so long that a ping is due
   * @param {() => object} owner.acks stream id to the highest finished seq, for `resume`
   */
  constructor(owner) {
    this._owner = owner;
    this._backoff = new Backoff();
    this._socket = null;
    this._version = '';
    this._session = null;
    this._bye = null;
    this._heardMs = 0;
    this._askedMs = 0;
    this._timer = null;
    this._asleep = false;
    /** Rises with each socket: work begun for an older one is void. */
    this.generation = 0;
    /** How many times a session was opened; for the curious and for tests. */
    this.opened = 0;
    this.state = { name: 'idle' };
    setInterval(() => this._watch(), 1000);
    window.addEventListener('online', () => this.retryNow());
  }

  get isOpen() {
    return this.state.name === 'open';
  }

  /** Bytes given to the socket that have not left yet. */
  get unsentBytes() {
    return this._socket?.bufferedAmount ?? 0;
  }

  /** Connect to a model version; an open connection to another one is left in good order. */
  open(version) {
    if (version !== this._version) this._session = null;
    this._version = version;
    this._backoff.reset();
    this._leave();
    this._connect();
  }

  /** Say goodbye and stay away. */
  close() {
    this._leave();
    this._session = null;
    this._become({ name: 'idle' });
  }

  /** Do not wait for the back-off any longer. */
  retryNow() {
    if (this.state.name !== 'waiting') return;
    this._backoff.reset();
    this._connect();
  }

  /** While asleep (hidden tab), a lost connection is not replaced; waking up does. */
  sleep(asleep) {
    this._asleep = asleep;
    if (!asleep && this.state.name === 'waiting' && this.state.retryAtMs === Infinity) this._connect();
  }

  send(message) {
    if (this._socket?.readyState === WebSocket.OPEN) this._socket.send(JSON.stringify(message));
  }

  /** @param {Uint8Array} bytes */
  sendFrame(bytes) {
    this._socket.send(bytes);
  }

  async _connect() {
    clearTimeout(this._timer);
    this._become({ name: 'connecting' });
    this._bye = null;
    const generation = ++this.generation;
    let token;
    try {
      token = await this._owner.takeToken();
    } catch (error) {
      if (generation !== this.generation) return;
      if (error instanceof KeyRefused) this._become({ name: 'key', reason: error.message, code: CODE_UNAUTHORIZED });
      else this._closed({ code: 1006, reason: '' }, false);
      return;
    }
    if (generation === this.generation) this._open(token);
  }

  _open(token) {
    const socket = new WebSocket(streamUrl(document.baseURI, this._version), SUBPROTOCOL);
    socket.binaryType = 'arraybuffer';
    this._socket = socket;
    this._heardMs = performance.now();
    let upgraded = false;
    socket.onopen = () => {
      upgraded = true;
      const resume = this._session && { session: this._session, acks: this._owner.acks() };
      socket.send(JSON.stringify(this._owner.makeHello(resume, token)));
    };
    socket.onmessage = (event) => {
      if (typeof event.data === 'string') this._receive(JSON.parse(event.data));
    };
    socket.onclose = (event) => this._closed(event, upgraded);
    this._timer = setTimeout(() => this._giveUp(), CONNECT_TIMEOUT_MS);
  }

  _receive(message) {
    this._heardMs = performance.now();
    if (message.type === 'bye') {
      this._bye = message;
      return;
    }
    if (message.type === 'welcome') {
      clearTimeout(this._timer);
      this._session = message.session;
      this._backoff.reset();
      this.opened += 1;
      this._owner.onMessage(message);
      this._become({ name: 'open' });
      return;
    }
    this._owner.onMessage(message);
  }

  async _closed(event, upgraded) {
    this._drop();
    const next = afterClose(event.code);
    const { generation } = this;
    if (next === 'key') return this._become({ name: 'key', reason: event.reason, code: event.code });
    if (next === 'stop') return this._become({ name: 'stopped', reason: event.reason, code: event.code });
    if (event.code === CODE_IDLE && this._asleep) return this._wait(Infinity, '', event.code);
    if (this._bye) return this._wait(this._bye.reconnect_ms ?? this._backoff.next(), 'The server is restarting');
    this._wait(this._backoff.next(), upgraded ? 'The connection to the server was lost' : '', event.code);
    // Only /health knows why: a refused upgrade reaches the page as code 1006 without a word.
    const health = await fetchHealth();
    if (this.generation === generation && this.state.name === 'waiting') {
      this._become({ ...this.state, reason: refusalReason(health, upgraded) });
    }
  }

  _wait(delayMs, reason, code) {
    const pauseMs = this._asleep ? Infinity : delayMs;
    if (pauseMs !== Infinity) this._timer = setTimeout(() => this._connect(), pauseMs);
    this._become({ name: 'waiting', retryAtMs: performance.now() + pauseMs, reason, code });
  }

  /** Once a second: a line that died without a word is noticed only by its silence. */
  _watch() {
    if (!this.isOpen) return;
    const now = performance.now();
    const silentMs = now - this._heardMs;
    const isShut = this._owner.takePing(now);
    if (silentMs > GIVE_UP_AFTER_MS && this._owner.expecting()) {
      this._giveUp();
    } else if (isShut || (silentMs > ASK_AFTER_MS && this._owner.expecting() && now - this._askedMs > ASK_AFTER_MS)) {
      this._askedMs = now;
      this.send({ type: 'ping', t0: Math.round(now * 1000) });
    }
  }

  _giveUp() {
    const socket = this._drop();
    socket?.close();
    this._closed({ code: 1006, reason: '' }, true);
  }

  _leave() {
    this.send({ type: 'bye', code: 1000, reason: 'the page leaves' });
    this._drop()?.close(1000);
  }

  /** Forget the socket: nothing it still says is heard. */
  _drop() {
    clearTimeout(this._timer);
    const socket = this._socket;
    this._socket = null;
    this.generation += 1;
    if (socket) socket.onopen = socket.onmessage = socket.onclose = null;
    return socket;
  }

  _become(state) {
    this.state = state;
    this._owner.onState(state);
  }
}

function refusalReason(health, upgraded) {
  if (!health.reachable) return 'The server does not answer';
  if (!health.ok) return health.reason;
  if (upgraded) return 'The connection to the server was lost';
  return 'The server is busy: one more stream would get too few frames';
}
