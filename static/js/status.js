// Tells the state of the connection: the pill in the head, and a banner over the picture when it is not well.

export class Status {
  /** @param {() => void} onRetry the person does not want to wait */
  constructor(onRetry) {
    this._pill = document.getElementById('connection');
    this._pillText = document.getElementById('connection-text');
    this._banner = document.getElementById('banner');
    this._bannerText = document.getElementById('banner-text');
    this._count = document.getElementById('banner-count');
    this._button = document.getElementById('banner-button');
    this._retryAtMs = null;
    this._button.addEventListener('click', onRetry);
    setInterval(() => this._tick(), 250);
  }

  /** @param {'idle' | 'open' | 'busy' | 'bad'} tone @param {string} text a few words */
  pill(tone, text) {
    this._pill.dataset.state = tone;
    write(this._pillText, text);
  }

  /** @param {string} text @param {number | null} retryAtMs performance.now of the next attempt */
  banner(text, retryAtMs = null) {
    this._banner.hidden = false;
    write(this._bannerText, text);
    this._retryAtMs = retryAtMs;
    this._button.hidden = this._count.hidden = retryAtMs === null;
    this._tick();
  }

  noBanner() {
    this._banner.hidden = true;
    this._retryAtMs = null;
  }

  _tick() {
    if (this._retryAtMs === null) return;
    const seconds = Math.max(0, Math.ceil((this._retryAtMs - performance.now()) / 1000));
    write(this._count, Number.isFinite(seconds) ? `trying again in ${seconds} s` : 'waiting for this tab');
  }
}

/** Write only what changed: screen readers read every write. */
function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
