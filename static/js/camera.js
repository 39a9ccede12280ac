// Opens and lists cameras. Errors keep the browser's name; error-messages.js explains them.

/** Return whether the page may use cameras: browsers offer them only in secure contexts (https or localhost). */
function isCameraAvailable() {
  return window.isSecureContext && Boolean(navigator.mediaDevices?.getUserMedia);
}

/**
 * Open a camera.
 * @param {{deviceId?: string, facing?: 'user' | 'environment'}} preference another camera is opened if the preferred
 *   one is missing
 * @returns {Promise<MediaStream>}
 * @throws {DOMException} NotAllowedError, NotFoundError, NotReadableError and others of getUserMedia; InsecureError if
 *   the page is not in a secure context
 */
export async function openCamera(preference) {
  if (!isCameraAvailable()) throw new DOMException('cameras require https or localhost', 'InsecureError');
  const video = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } };
  if (preference.deviceId) video.deviceId = { exact: preference.deviceId };
  else if (preference.facing) video.facingMode = { ideal: preference.facing };
  try {
    return await navigator.mediaDevices.getUserMedia({ video, audio: false });
  } catch (error) {
    // The camera of the last visit may not be plugged in.
    if (!preference.deviceId || !['OverconstrainedError', 'NotFoundError'].includes(error.name)) throw error;
    return openCamera({ facing: preference.facing });
  }
}

/**
 * List the cameras. Browsers reveal their names only after the user has allowed one.
 * @returns {Promise<{id: string, name: string}[]>}
 */
export async function listCameras() {
  if (!isCameraAvailable()) return [];
  const devices = await navigator.mediaDevices.enumerateDevices();
  return devices
    .filter((device) => device.kind === 'videoinput' && device.deviceId)
    .map((device, index) => ({ id: device.deviceId, name: device.label || `Camera ${index + 1}` }));
}

/** Names of cameras that are not above a screen, for browsers that do not tell which way a camera faces. */
const NOT_USER_FACING = /back|rear|environment|capture|hdmi|virtual|obs|document|scanner|microscope|endoscope|drone/i;

/**
 * Return whether a camera faces the user.
 * @param {MediaStreamTrack} track
 */
export function isUserFacing(track) {
  const { facingMode } = track.getSettings();
  if (facingMode) return facingMode === 'user';
  return !NOT_USER_FACING.test(track.label);
}
