// Asks /health what the server can do now; a refused WebSocket tells a page no reason, this does.

const TIMEOUT_MS = 4000;

/**
 * @typedef {object} HealthReport
 * @property {boolean} reachable whether anything answered
 * @property {boolean} ok whether streams are served now
 * @property {string} status ok, starting, loading, warming, restarting, draining, saturated …; empty when unreachable
 * @property {string} reason in words, empty when ok
 * @property {string} sampling on, off, starting, no_spool; empty when unreachable
 * @property {number} samples frames kept since the server was started
 * @property {Record<string, {name: string, classes: number, provider: string}>} models by version
 */

/** @returns {Promise<HealthReport>} never rejects */
export async function fetchHealth() {
  const unreachable = {
    reachable: false,
    ok: false,
    status: '',
    reason: 'The server does not answer',
    sampling: '',
    samples: 0,
    models: {},
  };
  try {
    const response = await fetch('health', { cache: 'no-store', signal: timeoutSignal() });
    const body = await response.json();
    const reasons = Array.isArray(body.reasons) ? body.reasons : [];
    return {
      reachable: true,
      ok: response.ok,
      status: String(body.status ?? ''),
      reason: response.ok ? '' : sentence(reasons.join('; ') || 'the server cannot serve right now'),
      sampling: String(body.sampling ?? ''),
      samples: Number(body.samples ?? 0),
      models: body.models ?? {},
    };
  } catch {
    return unreachable;
  }
}

function timeoutSignal() {
  const controller = new AbortController();
  setTimeout(() => controller.abort(), TIMEOUT_MS);
  return controller.signal;
}

function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
