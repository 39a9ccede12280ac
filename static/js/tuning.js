// What the person wants of the model, as detect.v1 says it: in the hello, and later by configure.

/** A slider moves faster than the server takes control messages (20 a second). */
const CONFIGURE_EVERY_MS = 120;

export class Tuning {
  /**
   * @param {object} settings of the page; read anew each time
   * @param {string} name of the stream: samples are filed under it
   * @param {() => string[]} chosen chosen labels; none: all classes
   * @param {(message: object) => void} send
   */
  constructor(settings, name, chosen, send) {
    this._settings = settings;
    this._name = name;
    this._chosen = chosen;
    this._send = send;
    this._cfg = 0;
    this._timer = null;
    /** What the server judges by while nothing else was asked for; null until it has said so. */
    this._ownThreshold = null;
  }

  /** Share of certainty, 0 to 1, from which on boxes are wanted; null until it is known. */
  get threshold() {
    return this._settings.threshold ?? this._ownThreshold;
  }

  /**
   * @param {string} token ticket in place of the API key; empty: none
   * @param {object | null} resume the session to take up again
   */
  hello(token, resume) {
    const hello = {
      type: 'hello',
      client: { name: 'demo-page', version: '1' },
      ...this.wishes,
    };
    if (token) hello.token = token;
    if (resume) hello.resume = resume;
    return hello;
  }

  /** What hello and offer have in common. */
  get wishes() {
    const wishes = { streams: [{ id: 0, codec: 'jpeg', mode: 'live', name: this._name }], params: this.params };
    if (!this._settings.keep) wishes.collect = false;
    return wishes;
  }

  /** The hello names no classes, since a label that the model lacks would spoil it: mend that now. */
  welcomed(params) {
    if (this._settings.threshold === null) this._ownThreshold = params.conf_threshold ?? this._ownThreshold;
    if (this._chosen().join('\n') !== (params.classes ?? []).join('\n')) this.changed();
  }

  /** Something has changed: tell the server soon, several changes at once. */
  changed() {
    this._timer ??= setTimeout(() => {
      this._timer = null;
      this._cfg += 1;
      const params = { ...this.params, classes: this._chosen() };
      this._send({ type: 'configure', cfg: this._cfg, params });
    }, CONFIGURE_EVERY_MS);
  }

  /**
   * Whether a box is wanted now: what an older setting let through vanishes before the server has heard.
   * @param {number[]} row of a result
   * @param {string[]} labels of the model
   */
  wants(row, labels) {
    const chosen = this._chosen();
    return row[4] >= this.threshold && (!chosen.length || chosen.includes(labels[row[5]]));
  }

  /** Thresholds as they are now; without classes, since a label that the model lacks would spoil a hello. */
  get params() {
    const { threshold, track } = this._settings;
    return threshold === null ? { track } : { conf_threshold: threshold, track };
  }
}
