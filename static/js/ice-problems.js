// What STUN and TURN servers answered wrongly while a way to the server was looked for, in words for a person; pure.

const REFUSED = new Set([401, 403, 441]);
const FULL = new Set([486, 508]);

export class IceProblems {
  constructor() {
    /** Sentence by server; the gravest is kept. */
    this._servers = new Map();
  }

  /** @param {{url?: string, errorCode?: number}} event `icecandidateerror`; codes of STUN and TURN, 701: no answer */
  add({ url = '', errorCode = 0 }) {
    const server = url.replace(/^(stuns?|turns?):/, '').replace(/\?.*$/, '');
    const kind = url.startsWith('turn') ? 'TURN' : 'STUN';
    const text = sentence(kind, server, errorCode);
    // Of one server some attempts are refused and others, over another network card, unanswered.
    if (!this._servers.has(server) || REFUSED.has(errorCode)) this._servers.set(server, text);
  }

  /** What to say; empty when every server answered. */
  get text() {
    return [...this._servers.values()].join(', and ');
  }
}

function sentence(kind, server, code) {
  if (REFUSED.has(code)) {
    return `the ${kind} server ${server} refuses the ${kind} credentials (${code}: is its secret the one in TURN_SECRET?)`;
  }
  if (FULL.has(code)) return `the ${kind} server ${server} takes no more clients (${code})`;
  return `the ${kind} server ${server} does not answer`;
}
