// Builds the card of a served model: file, device, classes, and where the model comes from.

import { element, markOf } from './versions-table.js';

const SHA_DIGITS = 12;

/**
 * @param {string} version
 * @param {object} served its part of the answer of GET /versions
 * @param {number} index of the version
 * @returns {HTMLElement}
 */
export function buildModel(version, served, index) {
  const card = element('section', `panel model ${markOf(index)}`);
  card.dataset.version = version;
  const title = element('h2');
  title.id = `model-${version}`;
  card.setAttribute('aria-labelledby', title.id);
  const tag = element('span', 'tag');
  tag.append(element('span', 'shape'), version);
  title.append(tag, served.model.name);
  card.append(title, facts(served));
  return card;
}

function facts({ model, lineage = {}, absent }) {
  const list = element('dl', 'facts');
  const add = (name, ...content) => {
    const value = element('dd');
    value.append(...content);
    list.append(element('dt', '', name), value);
  };
  add('File', model.file || '–');
  add('SHA-256', element('code', '', model.sha256));
  add('Device', model.device);
  add('Input', `${model.input[0]} × ${model.input[1]} px, family ${model.family}`);
  add('Batches', model.batches.map(({ size, run_ms: ms }) => `${size} in ${ms.toFixed(1)} ms`).join(', '));
  add('Threshold', String(model.threshold));
  add('Classes', ...classes(model.labels));
  if (model.loaded_at) add('Loaded', time(model.loaded_at));
  if (lineage.parents) add('Trained from', lineage.parents.map(({ name, sha256 }) => `${name} (${sha256.slice(0, SHA_DIGITS)})`).join(', '));
  if (lineage.training) add('Training', training(lineage.training));
  if (lineage.promotion) add('Promoted', ...promotion(lineage.promotion));
  if (lineage.licence) add('Licence', lineage.licence);
  if (lineage.source) add('Source', lineage.source);
  if (absent.lineage) add('Lineage', element('span', 'absent', 'not known: ' + absent.lineage));
  return list;
}

function classes({ count, names }) {
  if (!names) return [String(count)];
  const list = element('ul', 'names');
  list.append(...names.map((name) => element('li', '', name)));
  if (names.length <= 12) return [`${count}`, list];
  const fold = element('details', 'fold');
  fold.append(element('summary', '', `${count}: show names`), list);
  return [fold];
}

function training(record) {
  const told = Object.entries(record).map(([name, value]) => {
    const text = name === 'set' ? String(value).slice(0, SHA_DIGITS) : String(value);
    return `${name.replaceAll('_', ' ')} ${text}`;
  });
  return told.join(', ');
}

function promotion({ as, at, replaced }) {
  const content = [`as ${as}, `, time(at)];
  if (replaced) {
    const change = replaced.map50_change;
    const signed = (value) => `${value < 0 ? '−' : '+'}${Math.abs(value).toFixed(3)}`;
    const told = change ? `, mAP50 ${signed(change.value)} (${signed(change.low)} to ${signed(change.high)})` : '';
    content.push(`, in place of ${replaced.name}${told}`);
  }
  return content;
}

/** @param {string} text time in ISO 8601 @returns {HTMLElement} in the user's time zone */
export function time(text) {
  const found = element('time', '', new Date(text).toLocaleString());
  found.dateTime = text;
  return found;
}
