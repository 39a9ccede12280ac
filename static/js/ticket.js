// Trades the key of this tab for a ticket that opens one stream: a page cannot set headers on a WebSocket, and the key
// should travel no further than it must.

const TIMEOUT_MS = 8000;

/** The server wants a key, or another one. */
export class KeyRefused extends Error {}

/** @param {string} key API key; empty: none @returns {Record<string, string>} headers of a request */
export function authorization(key) {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/**
 * @param {string} key API key; empty: none
 * @returns {Promise<string>} what `hello` shows; empty without a key
 * @throws {KeyRefused} where the key is not good; another Error where there is no answer
 */
export async function takeTicket(key) {
  if (!key) return '';
  const signal = AbortSignal.timeout?.(TIMEOUT_MS);
  const response = await fetch('tickets', { method: 'POST', headers: authorization(key), cache: 'no-store', signal });
  if (response.status === 401 || response.status === 403) throw new KeyRefused((await response.json()).detail);
  if (!response.ok) throw new Error(`the server answers ${response.status}`);
  return (await response.json()).ticket;
}
