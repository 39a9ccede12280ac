// Builds the options of a session: parameters of the model, stream name, and whether samples may be collected.

import { chosenParameters, effectiveParameters, reportedDefaults } from './detection-parameters.js';

/** Delay of `configure`, so that a moving slider stays below the server's limit of 20 control messages per second. */
const CONFIGURE_DELAY_MS = 120;

export class SessionOptions {
  /**
   * @param {object} settings settings of the page; read again at each use
   * @param {string} streamName name of the stream; the server files samples under it
   * @param {() => string[]} selectedLabels labels of the classes to detect; empty: all
   * @param {(message: object) => void} send
   */
  constructor(settings, streamName, selectedLabels, send) {
    this._settings = settings;
    this._streamName = streamName;
    this._selectedLabels = selectedLabels;
    this._send = send;
    /** Number of the last `configure` message. */
    this._cfg = 0;
    this._timer = null;
    /** The model's defaults by name on the server, as far as it has reported them. */
    this._defaults = {};
  }

  /** Parameters in effect; null until they are known. */
  get effective() {
    return effectiveParameters(this._settings, this._defaults);
  }

  /** Parameters without classes: the server would reject the session for a label that the model does not have. */
  get params() {
    return { ...chosenParameters(this._settings), track: this._settings.track };
  }

  /** The part that the `hello` message and the WebRTC offer have in common. */
  get shared() {
    const streams = [{ id: 0, codec: 'jpeg', mode: 'live', name: this._streamName }];
    const options = { streams, params: this.params };
    if (!this._settings.keep) options.collect = false;
    return options;
  }

  /**
   * Return the `hello` message, which opens a WebSocket session.
   * @param {string} token ticket that stands for the API key; empty: none
   * @param {object | null} resume the session to resume; null: a new one
   */
  hello(token, resume) {
    const hello = { type: 'hello', client: { name: 'demo-page', version: '1' }, ...this.shared };
    if (token) hello.token = token;
    if (resume) hello.resume = resume;
    return hello;
  }

  /**
   * Handle the parameters in effect, from the `welcome` message. Only now are the model's labels known, so the classes
   * are sent if they differ.
   */
  handleWelcome(params) {
    Object.assign(this._defaults, reportedDefaults(this._settings, params));
    if (this._selectedLabels().join('\n') !== (params.classes ?? []).join('\n')) this.configureSoon();
  }

  /** Send the changed parameters in one `configure` message, after CONFIGURE_DELAY_MS. */
  configureSoon() {
    this._timer ??= setTimeout(() => {
      this._timer = null;
      this._cfg += 1;
      const params = { ...this.params, classes: this._selectedLabels() };
      this._send({ type: 'configure', cfg: this._cfg, params });
    }, CONFIGURE_DELAY_MS);
  }

  /**
   * Return whether a box passes the present threshold and classes. The page filters too, because results that are
   * under way still follow the previous parameters.
   * @param {number[]} box a row of a result
   * @param {string[]} labels of the model
   */
  accepts(box, labels) {
    const selected = this._selectedLabels();
    return box[4] >= this.effective.threshold && (!selected.length || selected.includes(labels[box[5]]));
  }
}
