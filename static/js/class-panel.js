// Which classes are shown: those seen so far with their counts, and a search among all labels of the model.

import { classColour } from './palette.js';

/** A count stands for the newest result; classes not seen for this long fade. */
const FADE_MS = 2000;

export class ClassPanel {
  /**
   * @param {{seen: HTMLElement, hint: HTMLElement, all: HTMLElement, search: HTMLInputElement,
   *   reset: HTMLElement}} parts
   * @param {(labels: string[]) => void} onChange chosen labels; none: all classes
   */
  constructor(parts, onChange) {
    this._parts = parts;
    this._onChange = onChange;
    this._labels = [];
    this._chosen = new Set();
    /** Class id to chip, count field, count in the newest result, and when it was last seen. */
    this._seen = new Map();
    this._rows = [];
    parts.search.addEventListener('input', () => this._filter());
    parts.reset.addEventListener('click', () => this._choose(new Set()));
  }

  /** Chosen labels that the model has, in its order. */
  get chosen() {
    return this._labels.filter((label) => this._chosen.has(label));
  }

  /** @param {string[]} labels of the model @param {string[]} chosen */
  setModel(labels, chosen) {
    this._chosen = new Set(chosen.filter((label) => labels.includes(label)));
    if (labels.join('\n') !== this._labels.join('\n')) {
      this._labels = labels;
      this.forgetSeen();
      this._parts.search.value = '';
      this._parts.search.hidden = labels.length < 8;
      this._rows = labels.map((label, id) => this._row(label, id));
      this._parts.all.replaceChildren(...this._rows.map((row) => row.element));
    }
    this._mark();
    this._filter();
  }

  /** Another source: what was seen before does not count. */
  forgetSeen() {
    this._seen.clear();
    this._parts.seen.replaceChildren();
    this._parts.hint.hidden = false;
  }

  /** @param {number[][]} boxes of the newest result, as shown @param {number} nowMs */
  count(boxes, nowMs) {
    for (const entry of this._seen.values()) entry.count = 0;
    for (const row of boxes) {
      const entry = this._seen.get(row[5]) ?? this._addSeen(row[5]);
      entry.count += 1;
      entry.lastMs = nowMs;
    }
  }

  /** Write the counts; called a few times a second, not per result. */
  update(nowMs) {
    for (const entry of this._seen.values()) {
      const text = String(entry.count);
      if (entry.field.textContent !== text) entry.field.textContent = text;
      entry.chip.classList.toggle('faded', nowMs - entry.lastMs > FADE_MS);
    }
  }

  _addSeen(id) {
    const chip = document.createElement('button');
    chip.type = 'button';
    chip.className = 'chip';
    chip.style.setProperty('--class-colour', classColour(id));
    const dot = document.createElement('span');
    dot.className = 'dot';
    const field = document.createElement('span');
    field.className = 'count';
    const label = this._labels[id] ?? `class ${id}`;
    chip.append(dot, document.createTextNode(label), field);
    chip.dataset.label = label;
    chip.addEventListener('click', () => this._toggle(label));
    const entry = { chip, field, count: 0, lastMs: 0 };
    this._seen.set(id, entry);
    this._parts.seen.append(chip);
    this._parts.hint.hidden = true;
    this._mark();
    return entry;
  }

  _row(label, id) {
    const element = document.createElement('label');
    element.className = 'class-row';
    element.style.setProperty('--class-colour', classColour(id));
    const box = document.createElement('input');
    box.type = 'checkbox';
    box.addEventListener('change', () => this._toggle(label));
    const dot = document.createElement('span');
    dot.className = 'dot';
    element.append(box, dot, document.createTextNode(label));
    return { element, box, label };
  }

  _toggle(label) {
    const chosen = new Set(this._chosen);
    if (!chosen.delete(label)) chosen.add(label);
    this._choose(chosen);
  }

  _choose(chosen) {
    this._chosen = chosen;
    this._mark();
    this._onChange(this.chosen);
  }

  _mark() {
    const all = this._chosen.size === 0;
    for (const { chip } of this._seen.values()) {
      chip.setAttribute('aria-pressed', String(this._chosen.has(chip.dataset.label)));
      chip.classList.toggle('off', !all && !this._chosen.has(chip.dataset.label));
    }
    for (const { box, label } of this._rows) box.checked = this._chosen.has(label);
    this._parts.reset.hidden = all;
  }

  _filter() {
    const wanted = this._parts.search.value.trim().toLowerCase();
    for (const { element, label } of this._rows) element.hidden = !label.toLowerCase().includes(wanted);
  }
}
