// What can go wrong, in plain words, and what a person can do about it; pure.

/**
 * @typedef {object} Problem
 * @property {string} kind stable name
 * @property {string} title
 * @property {string} text
 * @property {('retry' | 'file' | 'sample' | 'key' | 'reconnect')[]} actions buttons to offer, best first
 */

const CAMERA = {
  NotAllowedError: {
    kind: 'permission-denied',
    title: 'The camera is blocked for this page',
    text:
      'To allow it, click the camera or lock icon beside the address, choose Allow, then try again. ' +
      'On a phone, also look at Settings → your browser → Camera.',
    actions: ['retry', 'file', 'sample'],
  },
  NotFoundError: {
    kind: 'no-camera',
    title: 'No camera was found',
    text: 'Plug one in or switch it on, then try again. A video file or the sample works without one.',
    actions: ['retry', 'file', 'sample'],
  },
  NotReadableError: {
    kind: 'camera-in-use',
    title: 'The camera is in use',
    text: 'Another program or tab seems to be using it. Close video calls and camera apps, then try again.',
    actions: ['retry', 'file', 'sample'],
  },
  InsecureError: {
    kind: 'insecure-origin',
    title: 'Cameras need a secure address',
    text:
      'Browsers open the camera only on https:// or on localhost, and this page came over plain http. ' +
      'Open it with https, or on the server itself as http://localhost. A video file and the sample work here too.',
    actions: ['sample', 'file'],
  },
  lost: {
    kind: 'camera-lost',
    title: 'The camera went away',
    text: 'It was unplugged, switched off, or its permission was taken back.',
    actions: ['retry', 'file', 'sample'],
  },
};
// Older names of the same things, and neighbours that ask for the same remedy.
CAMERA.SecurityError = CAMERA.NotAllowedError;
CAMERA.DevicesNotFoundError = CAMERA.NotFoundError;
CAMERA.OverconstrainedError = CAMERA.NotFoundError;
CAMERA.AbortError = CAMERA.NotReadableError;
CAMERA.TrackStartError = CAMERA.NotReadableError;

/** @param {string} name the error's name, or `lost` @returns {Problem} */
export function cameraProblem(name) {
  return (
    CAMERA[name] ?? {
      kind: 'camera-failed',
      title: 'The camera did not start',
      text: `The browser says: ${name}. Try again, or use a video file or the sample.`,
      actions: ['retry', 'file', 'sample'],
    }
  );
}

/** @param {string} fileName @returns {Problem} */
export function fileProblem(fileName) {
  return {
    kind: 'unplayable',
    title: 'This file does not play here',
    text: `Your browser cannot play “${fileName}”. MP4 (H.264) and WebM play nearly everywhere.`,
    actions: ['file', 'sample'],
  };
}

const CLOSES = {
  4400: 'The server did not understand this page. Reload it: it may be older than the server.',
  4403: 'The server does not accept streams from this address. Its ALLOWED_ORIGINS setting lists who may.',
  4404: 'The server has no model of this version. Choose another one.',
  4406: 'Page and server speak different versions of the protocol. Reload the page.',
  4409: 'This session goes on in another tab or window.',
  4422: 'The server refuses these settings.',
};

/**
 * A close after which the page does not come back by itself.
 * @param {number} code @param {string} reason the server's own words @returns {Problem}
 */
export function closeProblem(code, reason) {
  if (code === 4401) return keyProblem(false);
  const text = CLOSES[code] ?? 'It gave no reason that would go away by waiting.';
  return {
    kind: 'refused',
    title: 'The server closed the stream',
    text: reason ? `${text} (${code}: ${reason})` : text,
    actions: ['reconnect'],
  };
}

/** @param {boolean} hadKey whether one was sent @returns {Problem} */
export function keyProblem(hadKey) {
  return {
    kind: 'key',
    title: hadKey ? 'The server does not know this key' : 'This server asks for a key',
    text: 'Enter one of its API keys. It is kept for this tab only and never becomes part of an address.',
    actions: ['key'],
  };
}

/** Why frames were not sent or not answered with boxes. */
export const DROP_REASONS = {
  superseded: 'a newer frame took its place',
  stale: 'too old when its turn came',
  rate: 'over the granted rate',
  decode_error: 'could not be decoded',
  no_keyframe: 'waited for a key frame',
  overload: 'the server is overloaded',
  error: 'answered with an error',
};

export const SKIP_REASONS = {
  window: 'earlier frames are still being answered',
  encoder: 'this device was still encoding',
  unsent: 'the network was still sending',
  rate: 'faster than the agreed rate',
  hold: 'the server asked to wait',
};

/** @param {string} reason of a `flow` message with window 0 */
export function holdText(reason) {
  return reason === 'restarting' ? 'The model is restarting; the stream goes on by itself' : 'The server asks to wait';
}
