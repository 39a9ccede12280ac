// Composes the versions page: polls GET /versions and shows the served models side by side.

import { authorizationHeaders } from './authentication.js';
import { PicturePairs, buildDifferences, buildVerdict } from './comparison-view.js';
import { loadKey, loadSettings, openStorage, saveKey, saveSettings } from './settings.js';
import { Theme, nextTheme } from './theme.js';
import { VersionCommands } from './version-commands.js';
import { buildModel, time } from './versions-model.js';
import { buildTable, element } from './versions-table.js';
import {
  boxRows, chooseEvaluations, classRows, countRows, describeEvaluations, durationText, latencyRows, meanRows, otherRows, scaleOf, sizeRows, stageRows,
} from './versions-text.js';

const POLL_MS = 5000;
const TIMEOUT_MS = 8000;
/** Number of classes that are shown at once. */
const MOST_CLASSES = 12;

class VersionsPage {
  constructor() {
    this._key = loadKey();
    this._timer = null;
    /** What is shown of each part, as text, so that parts are rebuilt only after a change. */
    this._shown = new Map();
    this._storage = openStorage();
    this._settings = loadSettings(this._storage, new URLSearchParams());
    this._theme = new Theme(() => {
      this._settings.theme = nextTheme(this._settings.theme);
      saveSettings(this._storage, this._settings);
      this._theme.show(this._settings.theme);
    });
    this._theme.show(this._settings.theme);
    this._pictures = new PicturePairs(byId('pairs'));
    this._commands = new VersionCommands(byId('commands'), () => this._key, (needsKey) => {
      this._needsKey = needsKey;
      this._poll();
    });
    byId('key-form').addEventListener('submit', (event) => {
      event.preventDefault();
      this._key = byId('key').value.trim();
      this._needsKey = false;
      saveKey(this._key);
      this._poll();
    });
    document.addEventListener('visibilitychange', () => {
      if (!document.hidden) this._poll();
    });
    this._poll();
  }

  /** Poll while the page is visible. */
  async _poll() {
    clearTimeout(this._timer);
    if (!document.hidden) await this._update();
    clearTimeout(this._timer);
    this._timer = setTimeout(() => this._poll(), POLL_MS);
  }

  async _update() {
    try {
      const headers = { Accept: 'application/json', ...authorizationHeaders(this._key) };
      const response = await fetch('versions', { headers, cache: 'no-store', signal: AbortSignal.timeout?.(TIMEOUT_MS) });
      const body = await response.json();
      if (!response.ok) throw new Error(body.detail ?? `status ${response.status}`);
      this._show(body);
    } catch (error) {
      const reason = error instanceof TypeError || error.name === 'TimeoutError' ? 'The server does not respond' : error.message;
      setState('error', reason);
    }
  }

  _show(body) {
    const { versions } = body;
    const names = Object.keys(versions);
    if (names.length) setState('ok', names.length > 1 ? `${names.length} versions` : '1 version');
    else setState('warning', 'Models are being loaded');
    const served = Object.values(versions);
    const hides = served.some(({ traffic }) => !traffic);
    byId('key-form').hidden = !hides && !this._needsKey;
    setText(byId('key-hint'), hides && this._key ? 'This key does not have the scope admin.' : 'Stored in this tab only.');
    this._showReplica(body);
    this._rebuild('models', served.map(({ model, lineage, absent }) => [model, lineage, absent]), () =>
      names.map((name, index) => buildModel(name, versions[name], index)));
    this._showComparison(body);
    this._commands.show(body);
    this._showScores(versions, names);
    this._showTraffic(served.map(({ traffic }) => traffic), names, body);
    this._showAbsent(body);
  }

  _showReplica({ replica, workers, since, elapsed_s: elapsedS }) {
    const target = byId('replica');
    const of = `${workers} ${workers === 1 ? 'worker' : 'workers'}${replica ? ` of replica ${replica}` : ''}`;
    if (since === undefined) setText(target, of);
    else if (this._started !== `${of} ${since.slice(0, 16)}`) {
      this._started = `${of} ${since.slice(0, 16)}`;
      target.replaceChildren(`${of}, started `, time(since));
    }
    this._window = elapsedS === undefined ? '' : `In ${durationText(elapsedS)} since the start of this replica, all workers together.`;
  }

  _showComparison({ comparison }) {
    byId('comparison').hidden = !comparison;
    if (!comparison) return;
    const { pictures = [], ...rest } = comparison;
    this._rebuild('verdict', rest, () => buildVerdict(rest));
    this._rebuild('differences', rest, () => buildDifferences(rest));
    byId('pictures').hidden = pictures.length === 0;
    const shown = JSON.stringify(pictures);
    if (this._shown.get('pairs') === shown) return;
    this._shown.set('pairs', shown);
    this._pictures.show(pictures, [comparison.first, comparison.second], this._key);
  }

  _showScores(versions, names) {
    const choice = chooseEvaluations(versions);
    const scores = names.map((name, index) => versions[name].evaluations?.[choice.parts[index]]);
    byId('scores').hidden = names.length === 0;
    const note = byId('scores-note');
    note.dataset.state = !choice.comparable && choice.parts.filter(Boolean).length > 1 ? 'warning' : '';
    setText(note, describeEvaluations(versions, choice));
    const tables = [
      ['All classes together', meanRows(scores), 1, '1'],
      ['AP50-95 by size of the objects', sizeRows(scores), 1, '1'],
      ['AP50 by class', classRows(scores), 1, '1', MOST_CLASSES],
      ['False boxes and time', otherRows(scores)],
    ];
    this._rebuildTables('scores-tables', tables, names);
  }

  _showTraffic(traffic, names, { versions }) {
    byId('traffic').hidden = !traffic.some(Boolean);
    setText(byId('traffic-note'), this._window);
    const inMs = (rows) => [scaleOf(rows), `${scaleOf(rows)} ms`];
    const [requests, runs, stages] = [latencyRows(traffic, 'request'), latencyRows(traffic, 'model_run'), stageRows(traffic)];
    const tables = [
      ['Answers and errors', traffic.some(Boolean) ? countRows(traffic) : []],
      ['Boxes per frame', boxRows(traffic), undefined, '', MOST_CLASSES],
      ['From request to answer', requests, ...inMs(requests)],
      ['A run of the model', runs, ...inMs(runs)],
      ['Stages of a frame, median', stages, ...inMs(stages)],
    ];
    this._rebuildTables('traffic-tables', tables, Object.keys(versions));
  }

  _rebuildTables(id, tables, versions) {
    const filled = tables.filter(([, rows]) => rows.length);
    this._rebuild(id, filled, () =>
      filled.map(([caption, rows, scale, end, most]) => buildTable({ caption, versions, rows, scale, end, most })));
  }

  _showAbsent({ absent, versions, comparison }) {
    const all = [...Object.entries(absent).map((entry) => ['', ...entry])];
    if (comparison) all.push(...Object.entries(comparison.absent).map(([path, reason]) => ['', `comparison.${path}`, reason]));
    for (const [version, each] of Object.entries(versions)) all.push(...Object.entries(each.absent).map((entry) => [version, ...entry]));
    byId('absent').hidden = all.length === 0;
    this._rebuild('absent-list', all, () =>
      all.map(([version, path, reason]) => {
        const line = element('li');
        line.append(element('b', '', `${version} ${path}`.trim()), `: ${reason}`);
        return line;
      }));
  }

  /** Replace the content of an element if what it shows has changed, so that open parts stay open. */
  _rebuild(id, content, build) {
    const text = JSON.stringify(content);
    if (this._shown.get(id) === text) return;
    this._shown.set(id, text);
    byId(id).replaceChildren(...build());
  }
}

function setState(state, text) {
  byId('state').dataset.state = state;
  setText(byId('state-text'), text);
}

/** Set the text only if it differs: screen readers announce every change of a status, even to the same text. */
function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

function byId(id) {
  return document.getElementById(id);
}

new VersionsPage();
