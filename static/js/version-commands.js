// The forms that change what is served. Each one calls a route of the service and shows its answer.

import { authorizationHeaders } from './authentication.js';

/** A load may take as long as a start of the service. */
const TIMEOUT_MS = 300_000;
const COMMANDS = {
  load: { method: 'POST', path: ({ version }) => `versions/${version}/load`, body: ({ path, sha256, ...rest }) => ({ path, ...(sha256 && { sha256 }), ...allowed(rest) }) },
  promote: { method: 'POST', path: () => 'versions/promote', body: allowed, asks: 'Serve the model of v2 as v1, too?' },
  rollback: { method: 'POST', path: () => 'versions/rollback', asks: 'Serve again what was served before the last change?' },
  split: { method: 'PUT', path: () => 'versions/split', body: ({ share }) => ({ v2: Number(share) / 100 }) },
  shadow: { method: 'PUT', path: () => 'versions/shadow', body: ({ share }) => ({ v2: Number(share) / 100 }) },
};

/** Shows the forms of the commands that the service offers. */
export class VersionCommands {
  /**
   * @param {HTMLElement} target panel with a form for each command
   * @param {() => string} key returns the API key; empty: none
   * @param {(needsKey: boolean) => void} done called after each command
   */
  constructor(target, key, done) {
    this._target = target;
    this._key = key;
    this._done = done;
    /** Forms whose value the user has changed; polls leave them alone. */
    this._touched = new Set();
    for (const form of target.querySelectorAll('form')) {
      form.addEventListener('submit', (event) => {
        event.preventDefault();
        this._run(form);
      });
      form.addEventListener('input', () => {
        this._touched.add(form);
        showShare(form);
      });
    }
  }

  /** @param {{commands?: string[], split?: {v2: number}, shadow?: {v2: number}}} body answer of GET /versions */
  show({ commands = [], split, shadow }) {
    this._target.hidden = commands.length === 0;
    for (const form of this._target.querySelectorAll('form')) {
      form.hidden = !commands.includes(form.dataset.command);
      const share = { split, shadow }[form.dataset.command]?.v2;
      if (share !== undefined && !this._touched.has(form)) {
        form.elements.share.value = Math.round(100 * share);
        showShare(form);
      }
    }
  }

  async _run(form) {
    const { method, path, body, asks } = COMMANDS[form.dataset.command];
    if (asks && !window.confirm(asks)) return;
    const values = Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, value.trim()]));
    const button = form.querySelector('button');
    button.disabled = true;
    this._say('', 'Working …');
    let needsKey = false;
    try {
      const headers = { Accept: 'application/json', ...authorizationHeaders(this._key()) };
      if (body) headers['Content-Type'] = 'application/json';
      const response = await fetch(path(values), {
        method, headers, body: body && JSON.stringify(body(values)), signal: AbortSignal.timeout?.(TIMEOUT_MS),
      });
      const answer = await response.json().catch(() => ({}));
      needsKey = response.status === 401 || response.status === 403;
      if (response.ok) this._say('ok', `Done: ${form.dataset.command}.`);
      else this._say('error', answer.detail ?? `The server answered with status ${response.status}.`);
    } catch {
      this._say('error', 'The server does not respond.');
    }
    button.disabled = false;
    this._touched.delete(form);
    this._done(needsKey);
  }

  _say(state, text) {
    const line = this._target.querySelector('.answer');
    line.dataset.state = state;
    line.textContent = text;
  }
}

/** Returns the part of a body that allows other classes, if its box is checked. */
function allowed({ labels_may_change: checked }) {
  return checked ? { labels_may_change: true } : {};
}

function showShare(form) {
  const output = form.querySelector('output');
  if (output) output.textContent = `${form.elements.share.value}%`;
}
