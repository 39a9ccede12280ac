// Frames and close codes of detect.v1 as a browser needs them; pure, its Python twin is streamer/protocol/wire.py.

export const SUBPROTOCOL = 'detect.v1.json';
export const FRAME_HEADER_BYTES = 24;
export const FLAG_DISCONTINUITY = 2;
export const MAX_SEQ = 0xffffffff;

const FRAME_MARK = 0x01;
const CODEC_JPEG = 0;

/** Close codes after which the same answer would come again: the page must not reconnect by itself. */
const FINAL_CODES = new Set([4400, 4403, 4404, 4406, 4409, 4422]);
export const CODE_UNAUTHORIZED = 4401;
export const CODE_IDLE = 4440;

/**
 * Return one frame message: 24 bytes of header (little-endian), then the JPEG.
 * @param {{seq: number, tsUs: number, width: number, height: number, epoch: number, flags?: number,
 *   stream?: number, rotation?: number}} frame `tsUs`: capture time in microseconds of the page's own clock;
 *   `width`, `height`: the JPEG's size in pixels.
 * @param {ArrayBuffer} payload the JPEG
 * @returns {Uint8Array}
 */
export function packFrame(frame, payload) {
  const message = new Uint8Array(FRAME_HEADER_BYTES + payload.byteLength);
  const view = new DataView(message.buffer);
  view.setUint8(0, FRAME_MARK);
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
 * Say what a client does after a close.
 * @param {number} code WebSocket close code
 * @returns {'stop' | 'key' | 'retry'} `key`: ask the person for an API key first
 */
export function afterClose(code) {
  if (code === CODE_UNAUTHORIZED) return 'key';
  return FINAL_CODES.has(code) ? 'stop' : 'retry';
}

/**
 * Return the address of a model version's stream, beside the page (also under a path prefix of a proxy).
 * @param {string} pageUrl address of the page
 * @param {string} version `v1` or `v2`
 * @returns {string} ws: or wss: address; never holds a key
 */
export function streamUrl(pageUrl, version) {
  const url = new URL(`${version}/stream`, pageUrl);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  url.search = '';
  url.hash = '';
  return url.href;
}
