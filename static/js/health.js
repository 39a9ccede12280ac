// Reads the state of the server from /health. It also explains a refused WebSocket, for which browsers give no reason.

const TIMEOUT_MS = 4000;

/**
 * @typedef {object} HealthReport
 * @property {boolean} reachable whether the server responded
 * @property {boolean} ok whether the server accepts streams
 * @property {string} reason why it does not, as a message for the user; empty if `ok`
 * @property {string} sampling on, off, starting or no_spool; empty if unreachable
 * @property {number} samples number of frames saved since the server started
 * @property {Record<string, {name: string, classes: number, provider: string}>} models by version
 */

/** @returns {Promise<HealthReport>} never rejects */
export async function fetchHealth() {
  try {
    const response = await fetch('health', { cache: 'no-store', signal: timeoutSignal() });
    const body = await response.json();
    const reasons = Array.isArray(body.reasons) ? body.reasons : [];
    return {
      reachable: true,
      ok: response.ok,
      reason: response.ok ? '' : capitalise(reasons.join('; ') || 'the server does not accept streams at the moment'),
      sampling: String(body.sampling ?? ''),
      samples: Number(body.samples ?? 0),
      models: body.models ?? {},
    };
  } catch {
    return {
      reachable: false,
      ok: false,
      reason: 'The server does not respond',
      sampling: '',
      samples: 0,
      models: {},
    };
  }
}

function timeoutSignal() {
  const controller = new AbortController();
  setTimeout(() => controller.abort(), TIMEOUT_MS);
  return controller.signal;
}

function capitalise(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
