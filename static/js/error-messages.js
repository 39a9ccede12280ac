// Explains errors of cameras, files and the server to the user, with the actions that may help. Pure.

/**
 * @typedef {object} ErrorMessage
 * @property {string} kind stable name of the error
 * @property {string} title
 * @property {string} text
 * @property {('retry' | 'file' | 'sample' | 'key' | 'reconnect')[]} actions buttons to offer, most helpful first
 */

const CAMERA_ERRORS = {
  NotAllowedError: {
    kind: 'permission-denied',
    title: 'Camera access is blocked',
    text:
      'To allow it, click the camera or lock icon next to the address, choose Allow, then try again. ' +
      'On a phone, also check Settings → your browser → Camera.',
    actions: ['retry', 'file', 'sample'],
  },
  NotFoundError: {
    kind: 'no-camera',
    title: 'No camera was found',
    text: 'Connect a camera or switch it on, then try again. You can also use a video file or the sample.',
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
    title: 'The camera requires a secure connection',
    text:
      'Browsers allow cameras only on pages loaded over https:// or from localhost. Open this page over https, or on ' +
      'the server itself as http://localhost. A video file or the sample works without it.',
    actions: ['sample', 'file'],
  },
  lost: {
    kind: 'camera-lost',
    title: 'The camera was disconnected',
    text: 'It was unplugged or switched off, or its permission was revoked.',
    actions: ['retry', 'file', 'sample'],
  },
};
// Names that older browsers use, and errors with the same remedy.
CAMERA_ERRORS.SecurityError = CAMERA_ERRORS.NotAllowedError;
CAMERA_ERRORS.DevicesNotFoundError = CAMERA_ERRORS.NotFoundError;
CAMERA_ERRORS.OverconstrainedError = CAMERA_ERRORS.NotFoundError;
CAMERA_ERRORS.AbortError = CAMERA_ERRORS.NotReadableError;
CAMERA_ERRORS.TrackStartError = CAMERA_ERRORS.NotReadableError;

/**
 * @param {string} name name of the DOMException, or `lost`
 * @returns {ErrorMessage}
 */
export function cameraError(name) {
  return (
    CAMERA_ERRORS[name] ?? {
      kind: 'camera-failed',
      title: 'The camera could not be started',
      text: `The browser reports: ${name}. Try again, or use a video file or the sample.`,
      actions: ['retry', 'file', 'sample'],
    }
  );
}

/**
 * @param {string} fileName
 * @returns {ErrorMessage}
 */
export function fileError(fileName) {
  return {
    kind: 'unplayable',
    title: 'The file cannot be played',
    text: `This browser cannot play “${fileName}”. Most browsers play MP4 (H.264) and WebM.`,
    actions: ['file', 'sample'],
  };
}

const CLOSE_TEXTS = {
  4400: 'The server could not process a message of this page. Reload the page: it may be older than the server.',
  4403: 'The server does not accept streams from pages of this address. Its ALLOWED_ORIGINS lists those allowed.',
  4404: 'The server has no model of this version. Select another version.',
  4406: 'The page and the server use different versions of the protocol. Reload the page.',
  4409: 'The session was continued in another tab or window.',
  4422: 'The server rejected the settings.',
};

/**
 * Explain a close after which the page does not reconnect by itself.
 * @param {number} code close code
 * @param {string} reason text of the server
 * @returns {ErrorMessage}
 */
export function closeError(code, reason) {
  if (code === 4401) return keyError(false);
  const text = CLOSE_TEXTS[code] ?? 'The server will not accept this stream again.';
  return {
    kind: 'refused',
    title: 'The server closed the stream',
    text: reason ? `${text} (${code}: ${reason})` : text,
    actions: ['reconnect'],
  };
}

/**
 * @param {boolean} hadKey whether the page sent a key
 * @returns {ErrorMessage}
 */
export function keyError(hadKey) {
  return {
    kind: 'key',
    title: hadKey ? 'The API key is not valid' : 'This server requires an API key',
    text: 'Enter an API key of this server. It is stored in this tab only and never appears in a URL.',
    actions: ['key'],
  };
}
