// Keeps the screen on while a stream runs.

export class WakeLock {
  /**
   * @param {{request: (type: 'screen') => Promise<object>} | null} api `navigator.wakeLock`; null: the browser
   *   has none, and the screen turns off as the system is set
   * @param {Document} page its visibility: browsers release the lock of a hidden tab
   */
  constructor(api = navigator.wakeLock ?? null, page = document) {
    this._api = api;
    this._page = page;
    this._wanted = false;
    /** @type {object | null} */
    this._lock = null;
    this._isRequesting = false;
    page.addEventListener('visibilitychange', () => this._update());
  }

  get isHeld() {
    return this._lock !== null;
  }

  /** @param {boolean} wanted whether the screen should stay on */
  set(wanted) {
    this._wanted = wanted;
    return this._update();
  }

  async _update() {
    if (!this._api || this._isRequesting) return;
    if (!this._wanted) {
      const lock = this._lock;
      this._lock = null;
      await lock?.release().catch(() => {});
      return;
    }
    if (this._lock || this._page.hidden) return;
    this._isRequesting = true;
    try {
      const lock = await this._api.request('screen');
      this._lock = lock;
      lock.addEventListener('release', () => {
        if (this._lock === lock) this._lock = null;
      });
    } catch {
      // Low battery, or a policy: the screen turns off as the system is set.
    } finally {
      this._isRequesting = false;
    }
    // The stream may have stopped meanwhile.
    if (!this._wanted) await this._update();
  }
}
