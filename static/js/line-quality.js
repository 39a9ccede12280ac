// How good the way to the server is, from the browser's own statistics; pure.

/**
 * @typedef {object} LineQuality
 * @property {number | null} rttMs round trip of media
 * @property {number | null} lossShare of packets lost, 0..1
 * @property {number | null} kbps sent
 * @property {string} codec such as VP8
 * @property {string} path `direct` or `relay`; empty while it is not known
 */

/**
 * @param {Iterable<object>} stats values of an RTCStatsReport
 * @param {{bytes: number, atMs: number} | null} before what the last call returned as `sent`
 * @returns {LineQuality & {sent: {bytes: number, atMs: number} | null}}
 */
export function lineQuality(stats, before) {
  const all = [...stats];
  const byId = new Map(all.map((entry) => [entry.id, entry]));
  const outbound = all.find(({ type, kind }) => type === 'outbound-rtp' && kind === 'video');
  const remote = all.find(({ type, kind }) => type === 'remote-inbound-rtp' && kind === 'video');
  const pair = all.find(({ type, state, nominated }) => type === 'candidate-pair' && state === 'succeeded' && nominated);
  const sent = outbound ? { bytes: outbound.bytesSent, atMs: outbound.timestamp } : null;
  const rtt = remote?.roundTripTime ?? pair?.currentRoundTripTime;
  return {
    rttMs: rtt === undefined ? null : rtt * 1000,
    lossShare: remote?.fractionLost ?? null,
    kbps: sent && before && sent.atMs > before.atMs ? ((sent.bytes - before.bytes) * 8) / (sent.atMs - before.atMs) : null,
    codec: (byId.get(outbound?.codecId)?.mimeType ?? '').replace('video/', ''),
    path: pathOf(byId.get(pair?.localCandidateId)?.candidateType),
    sent,
  };
}

function pathOf(candidateType) {
  if (!candidateType) return '';
  return candidateType === 'relay' ? 'relay' : 'direct';
}
