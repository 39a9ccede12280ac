// Shows the state of the connection: in the header, and in a banner over the video if it is interrupted.

const COUNTDOWN_INTERVAL_MS = 250;

/** Level and text of the pill while the connection is open but results are not current. */
const RESULT_TEXTS = {
  waiting: ['idle', 'Waiting for results'],
  stale: ['warning', 'No results'],
  paused: ['idle', 'Paused'],
};

/** @typedef {'idle' | 'ok' | 'warning' | 'error'} Level */

export class ConnectionStatus {
  /** @param {() => void} onRetry the user does not want to wait for the next attempt */
  constructor(onRetry) {
    this._pill = document.getElementById('connection');
    this._pillText = document.getElementById('connection-text');
    this._banner = document.getElementById('banner');
    this._bannerText = document.getElementById('banner-text');
    this._countdown = document.getElementById('banner-countdown');
    this._retryButton = document.getElementById('banner-button');
    /** Time of the next attempt (performance.now); null: the banner shows no countdown. */
    this._retryAtMs = null;
    this._retryButton.addEventListener('click', onRetry);
    setInterval(() => this._updateCountdown(), COUNTDOWN_INTERVAL_MS);
  }

  /**
   * Show the state of the server while no source plays.
   * @param {import('./health.js').HealthReport} health
   * @returns {Level}
   */
  showHealth({ ok, reachable }) {
    if (ok) {
      this._setPill('idle', 'Ready');
      return 'ok';
    }
    const level = reachable ? 'warning' : 'error';
    this._setPill(level, reachable ? 'Server not ready' : 'Server unreachable');
    return level;
  }

  /**
   * Show a state of the connection other than `open`, for which `showOpen` is called.
   * @param {import('./websocket-connection.js').ConnectionState} state
   */
  showState({ name, reason, retryAtMs }) {
    if (name === 'connecting') {
      // Keep the banner: it would flicker between attempts.
      this._setPill('warning', 'Connecting …');
      return;
    }
    if (name === 'waiting') {
      this._setPill('error', 'Reconnecting');
      this._showBanner(reason || 'The connection to the server was lost', retryAtMs);
      return;
    }
    if (name === 'keyRequired') this._setPill('error', 'API key required');
    else if (name === 'stopped') this._setPill('error', 'Closed by the server');
    this._hideBanner();
  }

  /**
   * Show an open connection.
   * @param {string} text what the pill shows while results are current
   * @param {import('./flow-control.js').FlowControl} flow
   * @param {import('./freshness.js').ResultState} results
   */
  showOpen(text, { isOnHold, holdReason }, results) {
    const [level, pillText] = isOnHold ? ['warning', 'On hold'] : (RESULT_TEXTS[results] ?? ['ok', text]);
    this._setPill(level, pillText);
    if (!isOnHold) this._hideBanner();
    else if (holdReason === 'restarting') this._showBanner('The model is restarting. The stream will resume.');
    else this._showBanner('The server has put the stream on hold');
  }

  /** @param {Level} level @param {string} text */
  _setPill(level, text) {
    this._pill.dataset.state = level;
    setText(this._pillText, text);
  }

  _showBanner(text, retryAtMs = null) {
    this._banner.hidden = false;
    setText(this._bannerText, text);
    this._retryAtMs = retryAtMs;
    this._retryButton.hidden = this._countdown.hidden = retryAtMs === null;
    this._updateCountdown();
  }

  _hideBanner() {
    this._banner.hidden = true;
    this._retryAtMs = null;
  }

  _updateCountdown() {
    if (this._retryAtMs === null) return;
    const seconds = Math.max(0, Math.ceil((this._retryAtMs - performance.now()) / 1000));
    const text = Number.isFinite(seconds) ? `Retrying in ${seconds} s` : 'Retrying when this tab is visible';
    setText(this._countdown, text);
  }
}

/** Set the text only if it differs: screen readers announce every change of a status, even to the same text. */
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
