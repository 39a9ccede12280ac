// Packs frames and interprets close codes of detect.v1. Pure; streamer/protocol/wire.py is the Python counterpart.

export const SUBPROTOCOL = 'detect.v1.json';
const FRAME_HEADER_BYTES = 24;
export const FLAG_DISCONTINUITY = 2;

const MESSAGE_TYPE_FRAME = 0x01;
const CODEC_JPEG = 0;

/** Close codes that a new attempt would get again: the page does not reconnect by itself. */
const FINAL_CLOSE_CODES = new Set([4400, 4403, 4404, 4406, 4409, 4422]);
export const CLOSE_UNAUTHORIZED = 4401;
export const CLOSE_IDLE = 4440;

/**
 * Say why the server asks the page to connect again.
 * @param {{ending?: string}} bye
 * @param {string} otherwise what to say if the stream does not move to another replica
 * @returns {string}
 */
export function explainBye(bye, otherwise) {
  return bye.ending === 'moved' ? 'The stream is moving to another replica, which has more room' : otherwise;
}

/**
 * Pack one frame message: a little-endian header of 24 bytes, followed by the JPEG.
 * @param {{seq: number, tsUs: number, width: number, height: number, epoch: number, flags?: number,
 *   stream?: number, rotation?: number}} frame `tsUs`: capture time in microseconds on the page's clock;
 *   `width`, `height`: size of the JPEG in pixels
 * @param {ArrayBuffer} payload the JPEG
 * @returns {Uint8Array}
 */
export function packFrame(frame, payload) {
  const message = new Uint8Array(FRAME_HEADER_BYTES + payload.byteLength);
  const view = new DataView(message.buffer);
  view.setUint8(0, MESSAGE_TYPE_FRAME);
  view.setUint8(1, CODEC_JPEG);
  view.setUint8(2, frame.flags ?? 0);
  view.setUint8(3, FRAME_HEADER_BYTES / 4);
  view.setUint32(4, frame.seq, true);
  view.setBigUint64(8, BigInt(Math.round(frame.tsUs)), true);
  view.setUint16(16, frame.width, true);
  view.setUint16(18, frame.height, true);
  view.setUint8(20, frame.stream ?? 0);
  view.setUint8(21, frame.rotation ?? 0);
  view.setUint16(22, frame.epoch & 0xffff, true);
  message.set(new Uint8Array(payload), FRAME_HEADER_BYTES);
  return message;
}

/**
 * Return what the page does after the server has closed the connection.
 * @param {number} code WebSocket close code
 * @returns {'stop' | 'askForKey' | 'reconnect'}
 */
export function actionAfterClose(code) {
  if (code === CLOSE_UNAUTHORIZED) return 'askForKey';
  return FINAL_CLOSE_CODES.has(code) ? 'stop' : 'reconnect';
}

/**
 * Return the stream URL of a model version. It is relative to the page, so it also works below a proxy's path prefix.
 * @param {string} pageUrl URL of the page
 * @param {string} version `v1` or `v2`
 * @returns {string} URL with the scheme ws: or wss:, without a query
 */
export function streamUrl(pageUrl, version) {
  const url = new URL(`${version}/stream`, pageUrl);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  url.search = '';
  url.hash = '';
  return url.href;
}
