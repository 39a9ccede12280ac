// Which way the frames go: WebSocket, or video over WebRTC as long as that works; the rest of the page sees one.

export class Transport {
  /**
   * @param {import('./connection.js').Connection} socket
   * @param {import('./video-connection.js').VideoConnection} video
   * @param {() => 'websocket' | 'webrtc'} wanted what the person chose
   */
  constructor(socket, video, wanted) {
    this._socket = socket;
    this._video = video;
    this._wanted = wanted;
    this._version = '';
    /** Why frames go over WebSocket although WebRTC is wanted; empty while they do not. */
    this.fallback = '';
  }

  /** `websocket` or `webrtc`: the one in use. */
  get kind() {
    return this._current === this._video ? 'webrtc' : 'websocket';
  }

  get carriesVideo() {
    return this.kind === 'webrtc';
  }

  get video() {
    return this._video;
  }

  get state() {
    return this._current.state;
  }

  get isOpen() {
    return this._current.isOpen;
  }

  get opened() {
    return this._current.opened;
  }

  get generation() {
    return this._current.generation;
  }

  get unsentBytes() {
    return this.carriesVideo ? 0 : this._socket.unsentBytes;
  }

  /** Connect by the way that is wanted; one that failed before gets another chance. */
  open(version) {
    this._version = version;
    this.fallback = '';
    const other = this._wanted() === 'webrtc' ? this._socket : this._video;
    if (other.state.name !== 'idle') other.close();
    this._inUse = this._wanted();
    this._current.open(version);
  }

  /** WebRTC does not work: go on over WebSocket, and remember why. */
  fallBack(reason) {
    this.fallback = reason;
    this._inUse = 'websocket';
    this._socket.open(this._version);
  }

  close() {
    this._current.close();
    this.fallback = '';
  }

  retryNow() {
    this._current.retryNow();
  }

  sleep(asleep) {
    this._socket.sleep(asleep);
    this._video.sleep(asleep);
  }

  send(message) {
    this._current.send(message);
  }

  /** @param {Uint8Array} bytes */
  sendFrame(bytes) {
    this._socket.sendFrame(bytes);
  }

  /** Another source plays. */
  sourceChanged() {
    if (this.carriesVideo) this._video.replaceSource();
  }

  get _current() {
    return this._inUse === 'webrtc' ? this._video : this._socket;
  }
}
