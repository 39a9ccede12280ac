// Loads and saves the settings of the page: in localStorage, overridden by the URL. The API key stays in its tab.

import { MOST_DETECTIONS } from './detection-parameters.js';
import { THEMES } from './theme.js';

const SETTINGS_STORE = 'demo.settings';
const KEY_STORE = 'demo.key';
/** Number of the format of what is stored. The first one had no number. */
const FORMAT = 2;
const URL_PARAMETERS = ['view', 'version', 'transport'];

const DEFAULTS = {
  /** `synced`: each frame with its own boxes; `live`: the newest boxes over the running video. */
  view: 'auto',
  version: 'v1',
  transport: 'websocket',
  /** Confidence threshold, 0 to 1; null: the model's default. */
  threshold: null,
  /** Overlap (IoU) from which one of two boxes is left out, 0 to 1; null: the model's default. */
  iouThreshold: null,
  /** Whether boxes of different classes suppress each other, too; null: the model's default. */
  agnosticNms: null,
  /** Most boxes of an image; null: the default. */
  maxDetections: null,
  track: false,
  /** Whether to play a tone when results stop. */
  sound: false,
  /** Whether the server may save single frames for training. */
  keep: true,
  fit: 'contain',
  /** Whether the user wants the video mirrored, by camera or kind of source. Without a choice, mirror.js decides. */
  mirrors: {},
  /** Whether a hidden tab goes on. */
  background: true,
  cameraId: '',
  facing: 'environment',
  theme: 'system',
  /** Whether single keys are shortcuts. */
  shortcuts: true,
  /** Labels of the selected classes by model version; empty: all classes. */
  classes: {},
};

const VALIDATORS = {
  view: (value) => ['auto', 'live', 'synced'].includes(value),
  version: (value) => /^v[0-9]+$/.test(value),
  transport: (value) => value === 'websocket' || value === 'webrtc',
  threshold: isShareOrNull,
  iouThreshold: isShareOrNull,
  agnosticNms: (value) => value === null || typeof value === 'boolean',
  maxDetections: (value) => value === null || (Number.isInteger(value) && value >= 1 && value <= MOST_DETECTIONS),
  track: (value) => typeof value === 'boolean',
  sound: (value) => typeof value === 'boolean',
  keep: (value) => typeof value === 'boolean',
  fit: (value) => value === 'contain' || value === 'cover',
  mirrors: (value) => isObject(value) && Object.values(value).every((entry) => typeof entry === 'boolean'),
  background: (value) => typeof value === 'boolean',
  cameraId: (value) => typeof value === 'string',
  facing: (value) => value === 'user' || value === 'environment',
  theme: (value) => THEMES.includes(value),
  shortcuts: (value) => typeof value === 'boolean',
  classes: (value) => isObject(value) && Object.values(value).every(Array.isArray),
};

/**
 * Load the settings. Invalid values are replaced by the defaults.
 * @param {Storage | null} storage null: the browser blocks it
 * @param {URLSearchParams} query parameters of the page's URL, which override stored values
 * @returns {object} the settings; DEFAULTS lists them
 */
export function loadSettings(storage, query) {
  const settings = { ...DEFAULTS, classes: {}, mirrors: {} };
  const stored = readStored(storage);
  const fromUrl = Object.fromEntries(URL_PARAMETERS.map((name) => [name, query.get(name)]));
  for (const [name, isValid] of Object.entries(VALIDATORS)) {
    if (name in stored && isValid(stored[name])) settings[name] = stored[name];
    if (fromUrl[name] && isValid(fromUrl[name])) settings[name] = fromUrl[name];
  }
  return settings;
}

function readStored(storage) {
  let stored = {};
  try {
    stored = Object(JSON.parse(storage?.getItem(SETTINGS_STORE) ?? '{}'));
  } catch {
    // The storage is blocked or contains invalid JSON: use the defaults.
  }
  // The first format stored all settings, and `live` was the default then: nobody has chosen it.
  if (stored.format === undefined && stored.view === 'live') delete stored.view;
  return stored;
}

function isShareOrNull(value) {
  return value === null || (typeof value === 'number' && value >= 0.01 && value <= 1);
}

function isObject(value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/**
 * Save what differs from the defaults, so that a new default also reaches users who come back.
 * @param {Storage | null} storage
 * @param {object} settings
 */
export function saveSettings(storage, settings) {
  const isChanged = ([name, value]) => JSON.stringify(value) !== JSON.stringify(DEFAULTS[name]);
  const changed = Object.fromEntries(Object.entries(settings).filter(isChanged));
  try {
    storage?.setItem(SETTINGS_STORE, JSON.stringify({ format: FORMAT, ...changed }));
  } catch {
    // Private windows may refuse to store: the settings then last as long as the page.
  }
}

/** @returns {string} the API key of this tab; empty: none */
export function loadKey() {
  try {
    return sessionStorage.getItem(KEY_STORE) ?? '';
  } catch {
    return '';
  }
}

/** @param {string} key empty: remove the stored key */
export function saveKey(key) {
  try {
    if (key) sessionStorage.setItem(KEY_STORE, key);
    else sessionStorage.removeItem(KEY_STORE);
  } catch {
    // Private windows may refuse to store: the key then lasts as long as the page.
  }
}

/** @returns {Storage | null} localStorage; null if the browser blocks access */
export function openStorage() {
  try {
    return window.localStorage;
  } catch {
    return null;
  }
}
