// Sends frames over WebSocket or as WebRTC video, and falls back to WebSocket if WebRTC does not work.

export class Transport {
  /**
   * @param {import('./websocket-connection.js').WebSocketConnection} webSocket
   * @param {import('./webrtc-connection.js').WebRtcConnection} webRtc
   * @param {() => 'websocket' | 'webrtc'} selected the user's choice
   */
  constructor(webSocket, webRtc, selected) {
    this._webSocket = webSocket;
    this._webRtc = webRtc;
    this._selected = selected;
    this._active = 'websocket';
    this._version = '';
    /** Why WebSocket is used although WebRTC is selected; empty otherwise. */
    this.fallbackReason = '';
  }

  /** The transport in use. @returns {'websocket' | 'webrtc'} */
  get active() {
    return this._active;
  }

  get usesWebRtc() {
    return this._active === 'webrtc';
  }

  get webRtc() {
    return this._webRtc;
  }

  get state() {
    return this._connection.state;
  }

  get isOpen() {
    return this._connection.isOpen;
  }

  get sessionsOpened() {
    return this._connection.sessionsOpened;
  }

  get generation() {
    return this._connection.generation;
  }

  get unsentBytes() {
    return this.usesWebRtc ? 0 : this._webSocket.unsentBytes;
  }

  /** Connect to a model version with the selected transport, even if it failed before. */
  open(version) {
    this._version = version;
    this.fallbackReason = '';
    this._active = this._selected();
    const other = this.usesWebRtc ? this._webSocket : this._webRtc;
    if (other.state.name !== 'idle') other.close();
    this._connection.open(version);
  }

  /** Continue over WebSocket. @param {string} reason why WebRTC does not work */
  fallBack(reason) {
    this.fallbackReason = reason;
    this._active = 'websocket';
    this._webSocket.open(this._version);
  }

  close() {
    this._connection.close();
    this.fallbackReason = '';
  }

  retryNow() {
    this._connection.retryNow();
  }

  setHidden(isHidden) {
    this._webSocket.setHidden(isHidden);
    this._webRtc.setHidden(isHidden);
  }

  send(message) {
    this._connection.send(message);
  }

  /** @param {Uint8Array} bytes a packed frame; WebSocket must be in use and open */
  sendFrame(bytes) {
    this._webSocket.sendFrame(bytes);
  }

  /** Continue with another video source, in the same session. */
  replaceSource() {
    if (this.usesWebRtc) this._webRtc.replaceSource();
  }

  get _connection() {
    return this.usesWebRtc ? this._webRtc : this._webSocket;
  }
}
