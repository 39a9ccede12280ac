// The parameters of detection for which a model has defaults: their settings, and their names on the server. Pure.

/** Name on the server by name of the setting. The value of a setting is null as long as the model's default applies. */
const SERVER_NAMES = {
  threshold: 'conf_threshold',
  iouThreshold: 'iou_threshold',
  agnosticNms: 'agnostic_nms',
  maxDetections: 'max_detections',
};

/** Most boxes of an image that the server returns on request. */
export const MOST_DETECTIONS = 1000;

/** Changes of settings that return to the model's defaults. */
export const MODEL_DEFAULTS = Object.freeze(Object.fromEntries(Object.keys(SERVER_NAMES).map((name) => [name, null])));

/** @param {object} settings @returns {Record<string, number | boolean>} what the user has set, by name on the server */
export function chosenParameters(settings) {
  const chosen = Object.entries(SERVER_NAMES).filter(([name]) => settings[name] !== null);
  return Object.fromEntries(chosen.map(([name, serverName]) => [serverName, settings[name]]));
}

/**
 * Return the values in effect.
 * @param {object} settings
 * @param {object} defaults of the model, by name on the server; absent: not known
 * @returns {{threshold: number | null, iouThreshold: number | null, agnosticNms: boolean | null, maxDetections: number | null}}
 *   null: not known
 */
export function effectiveParameters(settings, defaults) {
  const entries = Object.entries(SERVER_NAMES);
  return Object.fromEntries(entries.map(([name, serverName]) => [name, settings[name] ?? defaults[serverName] ?? null]));
}

/** Return those of the parameters in effect, as the server reports them, that are the model's defaults. */
export function reportedDefaults(settings, params) {
  const entries = Object.entries(SERVER_NAMES).filter(([name, serverName]) => settings[name] === null && serverName in params);
  return Object.fromEntries(entries.map(([, serverName]) => [serverName, params[serverName]]));
}

/** Return the number of boxes that a user has entered; null: the model's default. @param {string} text */
export function enteredMaxDetections(text) {
  const number = Math.round(Number(text));
  if (text.trim() === '' || !Number.isFinite(number)) return null;
  return Math.min(Math.max(number, 1), MOST_DETECTIONS);
}

/** Return whether a change of settings changes what is detected in an image. @param {object} changes */
export function changesDetection(changes) {
  return ['classes', ...Object.keys(SERVER_NAMES)].some((name) => name in changes);
}

/** Return whether a change returns to a default of the model: the server tells defaults only when a session is opened. */
export function needsDefaults(changes) {
  return Object.keys(SERVER_NAMES).some((name) => changes[name] === null);
}
