// Shows the state of the server before a source plays, and finds out whether the server has a sample.

import { fetchHealth } from './health.js';
import { SAMPLE_URL } from './video-source.js';

const POLL_NOT_READY_MS = 3000;
const POLL_READY_MS = 15000;

export class StartView {
  /**
   * @param {import('./connection-status.js').ConnectionStatus} status
   * @param {object} owner
   * @param {() => boolean} owner.isIdle whether no source plays; otherwise the connection's own state is shown
   * @param {(models: object) => void} owner.onModels receives the server's models by version
   */
  constructor(status, owner) {
    this._status = status;
    this._owner = owner;
    this._hint = document.getElementById('server-hint');
    this._timer = null;
    this.hasSample = false;
  }

  /** Find out once whether the server has the sample, which is optional. */
  async checkSample() {
    try {
      const response = await fetch(SAMPLE_URL, { headers: { Range: 'bytes=0-0' } });
      await response.arrayBuffer();
      this.hasSample = response.ok;
    } catch {
      this.hasSample = false;
    }
  }

  /** Poll the state of the server until a source plays. */
  async pollHealth() {
    clearTimeout(this._timer);
    const health = await fetchHealth();
    if (Object.keys(health.models).length) this._owner.onModels(health.models);
    if (!this._owner.isIdle()) return;
    this._show(health);
    clearTimeout(this._timer);
    this._timer = setTimeout(() => this.pollHealth(), health.ok ? POLL_READY_MS : POLL_NOT_READY_MS);
  }

  _show(health) {
    const [model] = Object.values(health.models);
    const device = /cuda|tensorrt/i.test(model?.provider ?? '') ? 'GPU' : 'CPU';
    const text = health.ok ? `Server ready · runs on ${device}` : health.reason;
    if (this._hint.textContent !== text) this._hint.textContent = text;
    this._hint.dataset.state = this._status.showHealth(health);
  }
}
