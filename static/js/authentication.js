// Authenticates requests with the API key, and exchanges the key for a ticket that opens one WebSocket stream.
// A page cannot set headers on a WebSocket. Its `hello` message carries a ticket, and the key itself is in no message.

const TIMEOUT_MS = 8000;

/** The server rejected the API key, or requires one. */
export class KeyRejectedError extends Error {}

/**
 * @param {string} key API key; empty: none
 * @returns {Record<string, string>} headers of an HTTP request
 */
export function authorizationHeaders(key) {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/**
 * Exchange the API key for a ticket.
 * @param {string} key API key; empty: none
 * @returns {Promise<string>} the `token` of a `hello` message; empty without a key
 * @throws {KeyRejectedError} if the server rejects the key
 * @throws {Error} if the server does not respond or fails
 */
export async function fetchTicket(key) {
  if (!key) return '';
  const signal = AbortSignal.timeout?.(TIMEOUT_MS);
  const headers = authorizationHeaders(key);
  const response = await fetch('tickets', { method: 'POST', headers, cache: 'no-store', signal });
  if (response.status === 401 || response.status === 403) throw new KeyRejectedError((await response.json()).detail);
  if (!response.ok) throw new Error(`the server returned status ${response.status}`);
  return (await response.json()).ticket;
}
