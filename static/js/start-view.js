// What is said before anything plays: is the server ready, which versions has it, is there a sample?

import { fetchHealth } from './health.js';
import { SAMPLE_URL } from './source.js';

const ASK_EVERY_MS = 3000;
const ASK_READY_EVERY_MS = 15000;

export class StartView {
  /**
   * @param {import('./status.js').Status} status
   * @param {object} owner
   * @param {() => boolean} owner.isIdle whether nothing plays: only then the server's readiness is news
   * @param {(models: object) => void} owner.onModels the server's models by version
   */
  constructor(status, owner) {
    this._status = status;
    this._owner = owner;
    this._hint = document.getElementById('server-hint');
    this._timer = null;
    this.hasSample = false;
  }

  /** Look once for the sample, which a server need not have. */
  async lookForSample() {
    try {
      // One byte is enough to know.
      const response = await fetch(SAMPLE_URL, { headers: { Range: 'bytes=0-0' } });
      await response.arrayBuffer();
      this.hasSample = response.ok;
    } catch {
      this.hasSample = false;
    }
  }

  /** Ask the server how it is, now and again until something plays. */
  async watch() {
    clearTimeout(this._timer);
    const health = await fetchHealth();
    if (Object.keys(health.models).length) this._owner.onModels(health.models);
    if (!this._owner.isIdle()) return;
    this._show(health);
    clearTimeout(this._timer);
    this._timer = setTimeout(() => this.watch(), health.ok ? ASK_READY_EVERY_MS : ASK_EVERY_MS);
  }

  _show(health) {
    const [model] = Object.values(health.models);
    const device = /cuda|tensorrt/i.test(model?.provider ?? '') ? 'GPU' : 'CPU';
    const text = health.ok ? `Server ready · runs on ${device}` : health.reason;
    if (this._hint.textContent !== text) this._hint.textContent = text;
    const tone = health.reachable ? 'busy' : 'bad';
    this._hint.dataset.state = health.ok ? 'open' : tone;
    if (health.ok) this._status.pill('idle', 'Ready');
    else this._status.pill(tone, health.reachable ? 'Not ready yet' : 'Server not found');
  }
}
