// Opens the WebSocket, reconnects with back-off, and detects a server that has become silent.

import { fetchTicket, KeyRejectedError } from './authentication.js';
import { Backoff } from './backoff.js';
import { fetchHealth } from './health.js';
import { actionAfterClose, CLOSE_IDLE, CLOSE_UNAUTHORIZED, explainBye, streamUrl, SUBPROTOCOL } from './protocol.js';

/** Sends a ping when the server has been silent for this long although a result is due. */
const PING_AFTER_MS = 5000;
/** Gives up the connection after this silence: a TCP connection whose peer has vanished is not reported as closed. */
const SILENCE_TIMEOUT_MS = 12000;
const CONNECT_TIMEOUT_MS = 10000;
const SILENCE_CHECK_MS = 1000;

/**
 * @typedef {object} ConnectionState
 * @property {'idle' | 'connecting' | 'open' | 'waiting' | 'keyRequired' | 'stopped'} name `waiting`: until the next
 *   attempt; `stopped`: the server closed the connection for good
 * @property {string} [reason] message for the user: why it waits or stopped
 * @property {number} [retryAtMs] time of the next attempt (performance.now); Infinity: when the tab is visible again
 * @property {number} [code] close code
 */

export class WebSocketConnection {
  /**
   * @param {object} owner
   * @param {() => string} owner.key API key; empty: none
   * @param {(resume: object | null, token: string) => object} owner.makeHello returns the `hello` message
   * @param {(message: object) => void} owner.onMessage receives every message except `bye`
   * @param {(state: ConnectionState) => void} owner.onState
   * @param {() => boolean} owner.expectsMessage whether the server owes the page a message
   * @param {(nowMs: number) => boolean} owner.takePingDue whether the window stayed closed so long that a ping is due
   * @param {() => object} owner.acks highest finished sequence number by stream id, to resume a session
   */
  constructor(owner) {
    this._owner = owner;
    this._backoff = new Backoff();
    this._socket = null;
    this._version = '';
    /** Id of the session to resume after a reconnect; null: start a new one. */
    this._session = null;
    /** The server's `bye` message, which precedes the close; null until it arrives. */
    this._bye = null;
    this._lastMessageMs = 0;
    this._lastPingMs = 0;
    this._timer = null;
    this._isHidden = false;
    /** Changes with each socket, so that asynchronous work for an earlier socket can be discarded. */
    this.generation = 0;
    /** How many sessions were opened. Tests and the console read it. */
    this.sessionsOpened = 0;
    /** @type {ConnectionState} */
    this.state = { name: 'idle' };
    setInterval(() => this._checkSilence(), SILENCE_CHECK_MS);
    window.addEventListener('online', () => this.retryNow());
  }

  get isOpen() {
    return this.state.name === 'open';
  }

  /** Bytes that were passed to the socket and have not been sent yet. */
  get unsentBytes() {
    return this._socket?.bufferedAmount ?? 0;
  }

  /**
   * Connect to a model version with a new session: a resumed one would keep its parameters. An open connection is closed
   * first, with a `bye` message.
   */
  open(version) {
    this._session = null;
    this._version = version;
    this._backoff.reset();
    this._sayBye();
    this._connect();
  }

  /** Close the connection with a `bye` message, and do not reconnect. */
  close() {
    this._sayBye();
    this._session = null;
    this._setState({ name: 'idle' });
  }

  /** Start the next attempt immediately. */
  retryNow() {
    if (this.state.name !== 'waiting') return;
    this._backoff.reset();
    this._connect();
  }

  /** Set whether the tab is hidden. A connection lost while it is hidden is opened again when it becomes visible. */
  setHidden(isHidden) {
    this._isHidden = isHidden;
    if (!isHidden && this.state.name === 'waiting' && this.state.retryAtMs === Infinity) this._connect();
  }

  /** Send a control message. It is discarded while the connection is not open. */
  send(message) {
    if (this._socket?.readyState === WebSocket.OPEN) this._socket.send(JSON.stringify(message));
  }

  /** @param {Uint8Array} bytes a packed frame; the connection must be open */
  sendFrame(bytes) {
    this._socket.send(bytes);
  }

  async _connect() {
    clearTimeout(this._timer);
    this._setState({ name: 'connecting' });
    this._bye = null;
    const generation = ++this.generation;
    let token;
    try {
      token = await fetchTicket(this._owner.key());
    } catch (error) {
      if (generation !== this.generation) return;
      if (error instanceof KeyRejectedError) {
        this._setState({ name: 'keyRequired', reason: error.message, code: CLOSE_UNAUTHORIZED });
      } else {
        this._handleClose({ code: 1006, reason: '' }, false);
      }
      return;
    }
    if (generation === this.generation) this._openSocket(token);
  }

  _openSocket(token) {
    const socket = new WebSocket(streamUrl(document.baseURI, this._version), SUBPROTOCOL);
    socket.binaryType = 'arraybuffer';
    this._socket = socket;
    this._lastMessageMs = performance.now();
    let upgraded = false;
    socket.onopen = () => {
      upgraded = true;
      const resume = this._session && { session: this._session, acks: this._owner.acks() };
      socket.send(JSON.stringify(this._owner.makeHello(resume, token)));
    };
    socket.onmessage = (event) => {
      if (typeof event.data === 'string') this._handleMessage(JSON.parse(event.data));
    };
    socket.onclose = (event) => this._handleClose(event, upgraded);
    this._timer = setTimeout(() => this._abandon(), CONNECT_TIMEOUT_MS);
  }

  _handleMessage(message) {
    this._lastMessageMs = performance.now();
    if (message.type === 'bye') {
      this._bye = message;
      return;
    }
    if (message.type === 'welcome') {
      clearTimeout(this._timer);
      this._session = message.session;
      this._backoff.reset();
      this.sessionsOpened += 1;
      this._owner.onMessage(message);
      this._setState({ name: 'open' });
      return;
    }
    this._owner.onMessage(message);
  }

  async _handleClose({ code, reason }, upgraded) {
    this._detachSocket();
    const action = actionAfterClose(code);
    const { generation } = this;
    if (action === 'askForKey') return this._setState({ name: 'keyRequired', reason, code });
    if (action === 'stop') return this._setState({ name: 'stopped', reason, code });
    if (code === CLOSE_IDLE && this._isHidden) return this._wait(Infinity, '', code);
    if (this._bye) {
      const reason = explainBye(this._bye, 'The server is restarting');
      return this._wait(this._bye.reconnect_ms ?? this._backoff.next(), reason);
    }
    this._wait(this._backoff.next(), upgraded ? 'The connection to the server was lost' : '', code);
    // Browsers report a refused upgrade as code 1006 without a reason. /health states it.
    const health = await fetchHealth();
    if (this.generation === generation && this.state.name === 'waiting') {
      this._setState({ ...this.state, reason: refusalReason(health, upgraded) });
    }
  }

  _wait(delayMs, reason, code) {
    const waitMs = this._isHidden ? Infinity : delayMs;
    if (waitMs !== Infinity) this._timer = setTimeout(() => this._connect(), waitMs);
    this._setState({ name: 'waiting', retryAtMs: performance.now() + waitMs, reason, code });
  }

  _checkSilence() {
    if (!this.isOpen) return;
    const nowMs = performance.now();
    const silentMs = nowMs - this._lastMessageMs;
    const windowStayedClosed = this._owner.takePingDue(nowMs);
    const isOverdue = silentMs > PING_AFTER_MS && this._owner.expectsMessage();
    if (silentMs > SILENCE_TIMEOUT_MS && isOverdue) {
      this._abandon();
    } else if (windowStayedClosed || (isOverdue && nowMs - this._lastPingMs > PING_AFTER_MS)) {
      this._lastPingMs = nowMs;
      this.send({ type: 'ping', t0: Math.round(nowMs * 1000) });
    }
  }

  /** Treat the connection as lost, although the browser has not reported it. */
  _abandon() {
    const socket = this._detachSocket();
    socket?.close();
    this._handleClose({ code: 1006, reason: '' }, true);
  }

  _sayBye() {
    this.send({ type: 'bye', code: 1000, reason: 'closed by the page' });
    this._detachSocket()?.close(1000);
  }

  /** Give up the socket and ignore its further events. Returns it, or null if there is none. */
  _detachSocket() {
    clearTimeout(this._timer);
    const socket = this._socket;
    this._socket = null;
    this.generation += 1;
    if (socket) socket.onopen = socket.onmessage = socket.onclose = null;
    return socket;
  }

  _setState(state) {
    this.state = state;
    this._owner.onState(state);
  }
}

function refusalReason(health, upgraded) {
  if (!health.reachable) return 'The server does not respond';
  if (!health.ok) return health.reason;
  if (upgraded) return 'The connection to the server was lost';
  return 'The server is at capacity: another stream would get too few frames';
}
