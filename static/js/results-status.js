// Shows everywhere on the page whether results are current: on the stage, beside the numbers, and as a sound.

import { Freshness, staleText } from './freshness.js';

const TONE_HZ = 660;
const TONE_S = 0.35;
const TONE_VOLUME = 0.12;

export class ResultsStatus {
  /**
   * @param {object} owner
   * @param {() => boolean} owner.wantsSound whether to play a tone when results stop
   * @param {() => void} owner.onChange the state has changed
   */
  constructor(owner) {
    this._owner = owner;
    this._freshness = new Freshness();
    this._stage = document.getElementById('stage');
    this._statistics = document.getElementById('stats');
    this._label = document.getElementById('stale-label');
    this._note = document.getElementById('stale-note');
    this._audio = null;
  }

  /** @returns {import('./freshness.js').ResultState} */
  get state() {
    return this._freshness.state;
  }

  /** Begin anew, because another source starts. */
  restart() {
    this._freshness.restart(performance.now());
  }

  /** Record that a result is shown. */
  addResult(nowMs) {
    this._freshness.addResult(nowMs);
  }

  /** Prepare the sound. Browsers allow sound only after the user has pressed something. */
  prepareSound() {
    this._audio ??= window.AudioContext ? new AudioContext() : null;
    this._audio?.resume().catch(() => {});
  }

  /** @param {{playing: boolean, paused: boolean}} source @param {number} nowMs */
  update(source, nowMs) {
    const before = this.state;
    const state = this._freshness.update(source, nowMs);
    this._showAge(state, nowMs);
    if (state === before) return;
    for (const element of [this._stage, this._statistics]) element.dataset.results = state;
    if (state === 'stale' && this._owner.wantsSound()) this._playTone();
    this._owner.onChange();
  }

  _showAge(state, nowMs) {
    const isStale = state === 'stale';
    this._label.hidden = !isStale;
    this._note.hidden = !isStale && state !== 'paused';
    if (this._note.hidden) return;
    const text = isStale ? staleText(this._freshness.ageMs(nowMs)) : 'Paused';
    if (isStale) this._label.textContent = text;
    this._note.textContent = `${text}. These numbers are not current.`;
  }

  _playTone() {
    this.prepareSound();
    if (!this._audio) return;
    const { currentTime, destination } = this._audio;
    const volume = new GainNode(this._audio, { gain: TONE_VOLUME });
    volume.gain.setTargetAtTime(0, currentTime + TONE_S / 2, TONE_S / 6);
    const tone = new OscillatorNode(this._audio, { frequency: TONE_HZ });
    tone.connect(volume).connect(destination);
    tone.start();
    tone.stop(currentTime + TONE_S);
  }
}
