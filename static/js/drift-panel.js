// Shows how far each camera is from its reference, and lets the user declare the present state as normal.

import { saveFile } from './download.js';
import { DriftRefused, fetchDriftStatus, fetchReport, reportUrl, updateReference } from './drift-client.js';
import { describeDrift, describeGroup, describeRolling, describeUpdate, driftBadge, driftBars, FULL_RATIO, suggestedHours } from './drift-text.js';

const POLL_MS = 10000;
const ALL_GROUPS = '*';

export class DriftPanel {
  /**
   * @param {object} owner
   * @param {() => string} owner.key API key; empty: none. The server shows names of streams only to administrators.
   * @param {() => void} owner.onKeyRequired the user has asked for something that requires another key
   */
  constructor(owner) {
    this._owner = owner;
    this._root = element('drift');
    this._indicator = element('drift-indicator');
    this._groups = element('drift-groups');
    this._select = element('drift-group');
    this._hours = element('drift-hours');
    this._outcome = element('drift-outcome');
    this._timer = null;
    /** Last status of the server; null: none yet. */
    this._status = null;
    /** The groups that are shown, as text, so that they are rebuilt only after a change. */
    this._shownGroups = '';
    element('drift-badge').addEventListener('click', () => this._open());
    this._select.addEventListener('change', () => this._suggestHours());
    element('drift-form').addEventListener('submit', (event) => {
      event.preventDefault();
      this._update(true);
    });
    element('drift-apply').addEventListener('click', () => this._update(false));
    element('drift-cancel').addEventListener('click', () => this._cancel());
  }

  /** What the panel shows, for tests and the console. */
  get debugState() {
    const groups = [...this._groups.children].map((group) => group.dataset.group);
    return { status: this._status?.status ?? null, groups, outcome: this._outcome.textContent };
  }

  /** Poll the status while the page is visible. */
  async poll() {
    clearTimeout(this._timer);
    if (!document.hidden) this._show(await fetchDriftStatus(this._owner.key()));
    clearTimeout(this._timer);
    this._timer = setTimeout(() => this.poll(), POLL_MS);
  }

  _show(status) {
    if (status === null) return;
    const isFirst = this._status === null;
    this._status = status;
    const badge = driftBadge(status.status);
    this._root.hidden = badge === null;
    element('drift-badge').hidden = !['drift', 'error'].includes(badge?.state);
    if (badge === null) return;
    for (const id of ['drift-badge', 'drift-state']) element(id).dataset.state = badge.state;
    setText(element('drift-state'), badge.text);
    const description = describeDrift(status);
    this._indicator.hidden = description === null;
    if (description) {
      this._indicator.dataset.state = description.state;
      setText(this._indicator.lastElementChild, description.text);
    }
    this._showGroups(status.groups ?? {}, status.reference?.groups ?? {});
    if (isFirst) this._suggestHours();
  }

  _showGroups(groups, references) {
    const names = Object.keys(groups);
    // A status that follows from groups without any: the server shows them only to administrators.
    element('drift-hidden').hidden = names.length > 0 || !['ok', 'drift', 'stale_reference'].includes(this._status.status);
    const shown = JSON.stringify([groups, references, this._owner.key() !== '']);
    if (shown === this._shownGroups) return;
    this._shownGroups = shown;
    this._groups.replaceChildren(...names.map((name) => this._createGroup(name, groups[name], references[name])));
    const selected = this._select.value;
    const options = [new Option('all cameras', ALL_GROUPS), ...names.map((name) => new Option(name, name))];
    this._select.replaceChildren(...options);
    if (names.includes(selected)) this._select.value = selected;
  }

  _createGroup(name, group, reference) {
    const root = create('section', 'drift-group');
    root.dataset.group = name;
    root.dataset.status = group.status;
    const head = create('div', 'drift-head');
    const state = describeGroup(group, (time) => time.toLocaleString([], { dateStyle: 'short', timeStyle: 'short' }));
    head.append(create('h3', '', name), create('span', 'hint', state), this._createReport(name));
    const bars = driftBars(group).map(createBar);
    root.append(head, ...(bars.length ? bars : [create('p', 'hint', 'Nothing to compare yet.')]));
    const rolling = describeRolling(reference?.rolling);
    if (rolling) root.append(create('p', 'hint', rolling));
    return root;
  }

  /** A link cannot send a key: with one, the report is fetched and saved as a file. */
  _createReport(name) {
    if (!this._owner.key()) {
      const link = create('a', 'link', 'Report');
      link.href = reportUrl(name);
      link.target = '_blank';
      link.rel = 'noopener';
      return link;
    }
    const button = create('button', 'link', 'Save report');
    button.type = 'button';
    button.addEventListener('click', async () => {
      setText(this._outcome, 'The report is being made …');
      await this._try(async () => {
        saveFile(await fetchReport(name, this._owner.key()), `drift-${name.replaceAll(/[^\w.-]/g, '_')}.html`);
        setText(this._outcome, '');
      });
    });
    return button;
  }

  _open() {
    this._root.open = true;
    this._root.scrollIntoView({ block: 'nearest' });
    this._root.querySelector('summary').focus();
  }

  _suggestHours() {
    this._hours.value = suggestedHours(this._status, this._select.value, Date.now());
  }

  async _update(isTrial) {
    const options = { group: this._select.value, hours: Number(this._hours.value), isTrial };
    setText(this._outcome, isTrial ? 'Checking …' : 'Learning …');
    await this._try(async () => {
      const update = await updateReference(options, this._owner.key());
      const text = describeUpdate(update);
      setText(this._outcome, isTrial ? `The reference would be learned from ${text}` : `Learned from ${text}`);
      element('drift-confirm').hidden = !isTrial;
      if (isTrial) element('drift-apply').focus();
      else this.poll();
    });
  }

  _cancel() {
    element('drift-confirm').hidden = true;
    setText(this._outcome, '');
    element('drift-learn').focus();
  }

  /** Run an action, and show why the server has refused it. */
  async _try(action) {
    try {
      await action();
    } catch (error) {
      if (!(error instanceof DriftRefused)) throw error;
      element('drift-confirm').hidden = true;
      setText(this._outcome, error.message);
      if (error.needsKey) this._owner.onKeyRequired();
    }
  }
}

function createBar({ name, ratio, text }) {
  const bar = create('div', 'drift-bar');
  bar.classList.toggle('over', ratio >= 1);
  const track = create('span', 'track');
  track.append(create('span', 'fill'));
  track.style.setProperty('--share', `${Math.min(100, (100 * ratio) / FULL_RATIO)}%`);
  track.setAttribute('role', 'img');
  track.setAttribute('aria-label', text);
  bar.append(create('span', 'name', name), track, create('span', 'value', `${Math.round(100 * ratio)}%`));
  bar.title = text;
  return bar;
}

function create(tag, className, text = '') {
  const created = document.createElement(tag);
  if (className) created.className = className;
  created.textContent = text;
  return created;
}

function element(id) {
  return document.getElementById(id);
}

/** Set the text only if it differs: screen readers announce every change of a status, even to the same text. */
function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}
