// Describes a WebRTC connection: errors of STUN and TURN servers, and statistics of the network. Pure.

const REJECTED = new Set([401, 403, 441]);
const AT_CAPACITY = new Set([486, 508]);

/** Collects the errors of STUN and TURN servers while the browser gathers candidates. */
export class IceErrors {
  constructor() {
    /** One message per server. */
    this._messages = new Map();
  }

  /**
   * @param {{url?: string, errorCode?: number}} event an `icecandidateerror` event; `errorCode`: code of STUN or TURN,
   *   or 701 if the server did not respond
   */
  add({ url = '', errorCode = 0 }) {
    const server = url.replace(/^(stuns?|turns?):/, '').replace(/\?.*$/, '');
    const kind = url.startsWith('turn') ? 'TURN' : 'STUN';
    // The browser tries each server from each network interface. A rejection explains more than a missing response.
    if (!this._messages.has(server) || REJECTED.has(errorCode)) {
      this._messages.set(server, iceErrorMessage(kind, server, errorCode));
    }
  }

  /** All messages in one sentence without a full stop; empty if every server responded. */
  get message() {
    return [...this._messages.values()].join(', and ');
  }
}

function iceErrorMessage(kind, server, code) {
  if (REJECTED.has(code)) {
    const hint = kind === 'TURN' ? `${code}: check that TURN_SECRET is the secret of this server` : `${code}`;
    return `the ${kind} server ${server} rejects the credentials (${hint})`;
  }
  if (AT_CAPACITY.has(code)) return `the ${kind} server ${server} accepts no more clients (${code})`;
  return `the ${kind} server ${server} does not respond`;
}

/**
 * @typedef {object} NetworkQuality
 * @property {number | null} rttMs round-trip time of the network
 * @property {number | null} lossShare share of packets that were lost, 0 to 1
 * @property {number | null} kbps bit rate of the sent video in kbit/s
 * @property {string} codec such as VP8
 * @property {string} path `direct` or `relay`; empty while it is not known
 */

/**
 * Compute the network quality from the browser's statistics.
 * @param {Iterable<object>} stats values of an RTCStatsReport
 * @param {{bytes: number, atMs: number} | null} previous `sent` of the previous call, from which the bit rate follows
 * @returns {NetworkQuality & {sent: {bytes: number, atMs: number} | null}}
 */
export function networkQuality(stats, previous) {
  const all = [...stats];
  const byId = new Map(all.map((entry) => [entry.id, entry]));
  const outbound = all.find(({ type, kind }) => type === 'outbound-rtp' && kind === 'video');
  const remote = all.find(({ type, kind }) => type === 'remote-inbound-rtp' && kind === 'video');
  const pairs = all.filter(({ type }) => type === 'candidate-pair');
  const pair = pairs.find(({ state, nominated }) => state === 'succeeded' && nominated);
  const sent = outbound ? { bytes: outbound.bytesSent, atMs: outbound.timestamp } : null;
  const rttS = remote?.roundTripTime ?? pair?.currentRoundTripTime;
  return {
    rttMs: rttS === undefined ? null : rttS * 1000,
    lossShare: remote?.fractionLost ?? null,
    kbps: bitRate(sent, previous),
    codec: (byId.get(outbound?.codecId)?.mimeType ?? '').replace('video/', ''),
    path: pathOf(byId.get(pair?.localCandidateId)?.candidateType),
    sent,
  };
}

function bitRate(sent, previous) {
  if (!sent || !previous || sent.atMs <= previous.atMs) return null;
  return ((sent.bytes - previous.bytes) * 8) / (sent.atMs - previous.atMs);
}

function pathOf(candidateType) {
  if (!candidateType) return '';
  return candidateType === 'relay' ? 'relay' : 'direct';
}
