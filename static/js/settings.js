// What the page remembers: checked values in localStorage, overridden by the address; the key only per tab.

const STORE = 'demo.settings';
const KEY_STORE = 'demo.key';

const DEFAULTS = {
  view: 'live',
  version: 'v1',
  transport: 'websocket',
  /** null: the model's own. */
  threshold: null,
  track: false,
  /** Whether the server may keep single frames for training. */
  keep: true,
  fit: 'contain',
  /** null: as the camera faces. */
  mirror: null,
  cameraId: '',
  facing: 'environment',
  /** Chosen labels by version; none: all classes. */
  classes: {},
};

const ALLOWED = {
  view: (value) => value === 'live' || value === 'synced',
  version: (value) => /^v[0-9]+$/.test(value),
  transport: (value) => value === 'websocket' || value === 'webrtc',
  threshold: (value) => value === null || (typeof value === 'number' && value >= 0.01 && value <= 1),
  track: (value) => typeof value === 'boolean',
  keep: (value) => typeof value === 'boolean',
  fit: (value) => value === 'contain' || value === 'cover',
  mirror: (value) => value === null || typeof value === 'boolean',
  cameraId: (value) => typeof value === 'string',
  facing: (value) => value === 'user' || value === 'environment',
  classes: (value) => typeof value === 'object' && value !== null && Object.values(value).every(Array.isArray),
};

/** @param {Storage | null} storage @param {URLSearchParams} address */
export function loadSettings(storage, address) {
  const settings = { ...DEFAULTS, classes: {} };
  let stored = {};
  try {
    stored = Object(JSON.parse(storage?.getItem(STORE) ?? '{}'));
  } catch {
    // Broken or blocked storage: the defaults do.
  }
  const asked = Object.fromEntries(['view', 'version', 'transport'].map((name) => [name, address.get(name)]));
  for (const [name, isAllowed] of Object.entries(ALLOWED)) {
    if (name in stored && isAllowed(stored[name])) settings[name] = stored[name];
    if (asked[name] && isAllowed(asked[name])) settings[name] = asked[name];
  }
  return settings;
}

export function saveSettings(storage, settings) {
  try {
    storage?.setItem(STORE, JSON.stringify(settings));
  } catch {
    // Private windows may refuse: then nothing is remembered.
  }
}

/** @returns {string} the API key of this tab; empty when none was given */
export function loadKey() {
  try {
    return sessionStorage.getItem(KEY_STORE) ?? '';
  } catch {
    return '';
  }
}

export function saveKey(key) {
  try {
    if (key) sessionStorage.setItem(KEY_STORE, key);
    else sessionStorage.removeItem(KEY_STORE);
  } catch {
    // Then it lives as long as the page.
  }
}

/** localStorage, or null where the browser blocks even looking at it. */
export function openStorage() {
  try {
    return window.localStorage;
  } catch {
    return null;
  }
}
