// Lets the user select classes: among those detected so far, with their counts, and among all classes of the model.

import { classColour } from './palette.js';

/** A class that has not been detected for this long is shown faded. */
const FADE_AFTER_MS = 2000;
/** The search field is shown for models with at least this many classes. */
const SEARCH_MIN_CLASSES = 8;

export class ClassPanel {
  /** @param {(labels: string[]) => void} onChange receives the selected labels; empty: all classes */
  constructor(onChange) {
    this._detectedList = document.getElementById('detected-classes');
    this._hint = document.getElementById('classes-hint');
    this._allList = document.getElementById('class-list');
    this._search = document.getElementById('class-search');
    this._resetButton = document.getElementById('classes-reset');
    this._onChange = onChange;
    this._labels = [];
    this._selected = new Set();
    /** By class id: chip, element of the count, count in the newest result, and time of the last detection. */
    this._detected = new Map();
    /** One row per class of the model: element, checkbox and label. */
    this._rows = [];
    this._search.addEventListener('input', () => this._filterRows());
    this._resetButton.addEventListener('click', () => this._select(new Set()));
  }

  /** Selected labels in the model's order; empty: all classes. */
  get selectedLabels() {
    return this._labels.filter((label) => this._selected.has(label));
  }

  /**
   * Show the classes of a model.
   * @param {string[]} labels of the model
   * @param {string[]} selected labels to select; those that the model does not have are ignored
   */
  setModel(labels, selected) {
    this._selected = new Set(selected.filter((label) => labels.includes(label)));
    if (labels.join('\n') !== this._labels.join('\n')) {
      this._labels = labels;
      this.clearDetected();
      this._search.value = '';
      this._search.hidden = labels.length < SEARCH_MIN_CLASSES;
      this._rows = labels.map((label, id) => this._createRow(label, id));
      this._allList.replaceChildren(...this._rows.map((row) => row.element));
    }
    this._showSelection();
    this._filterRows();
  }

  /** Forget which classes were detected, because another source starts. */
  clearDetected() {
    this._detected.clear();
    this._detectedList.replaceChildren();
    this._hint.hidden = false;
  }

  /** Count the boxes of the newest result by class. @param {number[][]} boxes the visible ones @param {number} nowMs */
  countBoxes(boxes, nowMs) {
    for (const entry of this._detected.values()) entry.count = 0;
    for (const box of boxes) {
      const entry = this._detected.get(box[5]) ?? this._addDetected(box[5]);
      entry.count += 1;
      entry.lastMs = nowMs;
    }
  }

  /** Number of objects in the newest result by label. @returns {[string, number][]} */
  get counts() {
    return [...this._detected.values()].map(({ chip, count }) => [chip.dataset.label, count]);
  }

  /** Show the counts. Called a few times per second instead of for each result, to keep them readable. */
  update(nowMs) {
    for (const entry of this._detected.values()) {
      const text = String(entry.count);
      if (entry.countElement.textContent !== text) entry.countElement.textContent = text;
      entry.chip.classList.toggle('faded', nowMs - entry.lastMs > FADE_AFTER_MS);
    }
  }

  _addDetected(id) {
    const label = this._labels[id] ?? `class ${id}`;
    const chip = document.createElement('button');
    chip.type = 'button';
    chip.className = 'chip';
    chip.style.setProperty('--class-colour', classColour(id));
    chip.dataset.label = label;
    const countElement = createSpan('count');
    chip.append(createSpan('dot'), document.createTextNode(label), countElement);
    chip.addEventListener('click', () => this._toggle(label));
    const entry = { chip, countElement, count: 0, lastMs: 0 };
    this._detected.set(id, entry);
    this._detectedList.append(chip);
    this._hint.hidden = true;
    this._showSelection();
    return entry;
  }

  _createRow(label, id) {
    const element = document.createElement('label');
    element.className = 'class-row';
    element.style.setProperty('--class-colour', classColour(id));
    const checkbox = document.createElement('input');
    checkbox.type = 'checkbox';
    checkbox.addEventListener('change', () => this._toggle(label));
    element.append(checkbox, createSpan('dot'), document.createTextNode(label));
    return { element, checkbox, label };
  }

  _toggle(label) {
    const selected = new Set(this._selected);
    if (!selected.delete(label)) selected.add(label);
    this._select(selected);
  }

  _select(selected) {
    this._selected = selected;
    this._showSelection();
    this._onChange(this.selectedLabels);
  }

  _showSelection() {
    const showsAll = this._selected.size === 0;
    for (const { chip } of this._detected.values()) {
      const isSelected = this._selected.has(chip.dataset.label);
      chip.setAttribute('aria-pressed', String(isSelected));
      chip.classList.toggle('off', !showsAll && !isSelected);
    }
    for (const { checkbox, label } of this._rows) checkbox.checked = this._selected.has(label);
    this._resetButton.hidden = showsAll;
  }

  _filterRows() {
    const query = this._search.value.trim().toLowerCase();
    for (const { element, label } of this._rows) element.hidden = !label.toLowerCase().includes(query);
  }
}

function createSpan(className) {
  const span = document.createElement('span');
  span.className = className;
  return span;
}
