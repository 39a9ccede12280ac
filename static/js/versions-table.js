// Builds the tables of the versions page. Every row has its numbers as text; the chart beside them is decoration.

const MARKS = ['first', 'second'];

/** @param {number} index of the version @returns {string} class name that sets its colour and shape */
export function markOf(index) {
  return MARKS[index % MARKS.length];
}

/**
 * @param {object} table
 * @param {string} table.caption
 * @param {string[]} table.versions names of the columns
 * @param {import('./versions-text.js').Row[]} table.rows
 * @param {number} [table.scale] value at the right end of the charts; without one, each row has its own and bars
 * @param {string} [table.end] text at that end
 * @param {number} [table.most] number of rows that are shown at once
 * @returns {HTMLElement}
 */
export function buildTable({ caption, versions, rows, scale, end = '', most = Infinity }) {
  const whole = element('div');
  whole.append(buildPart(caption, versions, rows.slice(0, most), scale, end));
  if (rows.length > most) {
    const rest = element('details', 'more');
    rest.append(element('summary', '', `${rows.length - most} more`), buildPart(`${caption}, continued`, versions, rows.slice(most), scale, end));
    whole.append(rest);
  }
  return whole;
}

function buildPart(caption, versions, rows, scale, end) {
  const table = element('table', 'plot');
  table.style.setProperty('--versions', versions.length);
  table.append(element('caption', '', caption));
  const head = table.createTHead().insertRow();
  head.append(header('col', '', element('span', 'visually-hidden', 'Figure')), header('col', 'axis', axis(scale, end)));
  versions.forEach((version, index) => head.append(header('col', `number ${markOf(index)}`, version)));
  const body = table.createTBody();
  for (const { name, cells } of rows) {
    const row = body.insertRow();
    row.append(header('row', '', name));
    const graph = row.insertCell();
    graph.className = 'graph';
    const lines = element('div');
    lines.setAttribute('aria-hidden', 'true');
    const largest = scale ?? Math.max(...cells.map((cell) => cell?.value ?? 0), Number.MIN_VALUE);
    cells.forEach((cell, index) => lines.append(track(cell, index, largest, scale === undefined)));
    graph.append(lines);
    cells.forEach((cell, index) => row.append(number(cell, index)));
  }
  addRoles(table);
  return table;
}

/** On phones the style turns rows into grids, and browsers then no longer tell screen readers that they are rows. */
export function addRoles(table) {
  const roles = { thead: 'rowgroup', tbody: 'rowgroup', tr: 'row', td: 'cell', 'th[scope=col]': 'columnheader', 'th[scope=row]': 'rowheader' };
  table.setAttribute('role', 'table');
  for (const [selector, role] of Object.entries(roles)) {
    for (const part of table.querySelectorAll(selector)) part.setAttribute('role', role);
  }
}

function axis(scale, end) {
  const line = element('div');
  line.append(element('span', 'visually-hidden', 'Chart'));
  if (scale === undefined) return line;
  for (const text of ['0', end]) {
    const mark = element('span', '', text);
    mark.setAttribute('aria-hidden', 'true');
    line.append(mark);
  }
  return line;
}

function track(cell, index, largest, asBar) {
  const line = element('div', `track ${markOf(index)}`);
  if (!cell) return line;
  const share = (value) => `${100 * Math.min(1, Math.max(0, value / largest))}%`;
  if (cell.low !== null) {
    const range = element('span', 'range');
    range.style.setProperty('--low', share(cell.low));
    range.style.setProperty('--high', share(cell.high ?? largest));
    line.append(range);
  }
  if (asBar && !cell.value) return line;
  const mark = element('span', asBar ? 'bar' : 'mark');
  mark.style.setProperty('--at', share(cell.value));
  line.append(mark);
  return line;
}

function number(cell, index) {
  const found = element('td', `number ${markOf(index)}${cell ? '' : ' unknown'}`, cell ? cell.text : '–');
  if (!cell) found.append(element('span', 'visually-hidden', 'not known'));
  else if (cell.note) found.append(element('small', '', cell.note));
  return found;
}

/** @returns {HTMLElement} heading of a column or row */
export function header(scope, className, content) {
  const found = element('th', className);
  found.scope = scope;
  found.append(content);
  return found;
}

/** @returns {HTMLElement} */
export function element(name, className = '', text = '') {
  const created = document.createElement(name);
  if (className) created.className = className;
  if (text) created.textContent = text;
  return created;
}
