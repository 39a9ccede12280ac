// Reads the drift status, fetches reports and updates the reference.

import { authorizationHeaders } from './authentication.js';

const STATUS_TIMEOUT_MS = 4000;

/** The server has refused a request; the message is its reason. */
export class DriftRefused extends Error {
  /** @param {string} message @param {boolean} needsKey whether another API key may help */
  constructor(message, needsKey) {
    super(message);
    this.needsKey = needsKey;
  }
}

/** @param {string} key API key; empty: none @returns {Promise<object | null>} null if the server does not respond */
export async function fetchDriftStatus(key) {
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(), STATUS_TIMEOUT_MS);
  try {
    const headers = authorizationHeaders(key);
    const response = await fetch('drift/status', { headers, cache: 'no-store', signal: controller.signal });
    return response.ok ? await response.json() : null;
  } catch {
    return null;
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Learn the last hours as normal. `force`, because that is what the user says, also in the middle of a drift.
 * @param {{group: string, hours: number, isTrial: boolean}} options `group`: `*` for all; `isTrial`: only find out what
 *   would be learned
 * @param {string} key API key; empty: none
 * @returns {Promise<object>} what was learned
 * @throws {DriftRefused}
 */
export async function updateReference({ group, hours, isTrial }, key) {
  const response = await request('reference/update', key, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ source: 'last', hours, group, dry_run: isTrial, force: true }),
  });
  return response.json();
}

/** @param {string} group @returns {string} address of the report, relative to the page */
export function reportUrl(group) {
  return `drift/report?group=${encodeURIComponent(group)}`;
}

/** @param {string} group @param {string} key @returns {Promise<Blob>} the report as HTML @throws {DriftRefused} */
export async function fetchReport(group, key) {
  return (await request(reportUrl(group), key, {})).blob();
}

async function request(url, key, options) {
  let response;
  try {
    response = await fetch(url, { ...options, headers: { ...options.headers, ...authorizationHeaders(key) } });
  } catch {
    throw new DriftRefused('The server does not respond.', false);
  }
  if (response.ok) return response;
  const { detail } = await response.json().catch(() => ({}));
  const needsKey = response.status === 401 || response.status === 403;
  throw new DriftRefused(detail ?? `The server returned status ${response.status}.`, needsKey);
}
