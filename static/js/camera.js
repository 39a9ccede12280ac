// Opens cameras and lists them; errors keep the browser's name, problems.js puts them into words.

/** A camera is present only where the browser trusts the page's address. */
export function cameraAllowedHere() {
  return window.isSecureContext && Boolean(navigator.mediaDevices?.getUserMedia);
}

/**
 * Open a camera.
 * @param {{deviceId?: string, facing?: 'user' | 'environment'}} wish what is preferred; any camera will do
 * @returns {Promise<MediaStream>}
 * @throws {DOMException} NotAllowedError, NotFoundError, NotReadableError, …; InsecureError for the address
 */
export async function openCamera(wish) {
  if (!cameraAllowedHere()) throw new DOMException('needs https or localhost', 'InsecureError');
  const video = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } };
  if (wish.deviceId) video.deviceId = { exact: wish.deviceId };
  else if (wish.facing) video.facingMode = { ideal: wish.facing };
  try {
    return await navigator.mediaDevices.getUserMedia({ video, audio: false });
  } catch (error) {
    // The remembered camera is not plugged in today.
    if (!wish.deviceId || !['OverconstrainedError', 'NotFoundError'].includes(error.name)) throw error;
    return openCamera({ facing: wish.facing });
  }
}

/**
 * List cameras; their names are known only after one was opened.
 * @returns {Promise<{id: string, name: string}[]>}
 */
export async function listCameras() {
  if (!cameraAllowedHere()) return [];
  const devices = await navigator.mediaDevices.enumerateDevices();
  return devices
    .filter((device) => device.kind === 'videoinput' && device.deviceId)
    .map((device, index) => ({ id: device.deviceId, name: device.label || `Camera ${index + 1}` }));
}

/**
 * Say whether a camera looks at its user; such a picture is shown mirrored.
 * @param {MediaStreamTrack} track
 */
export function facesUser(track) {
  const { facingMode } = track.getSettings();
  if (facingMode) return facingMode === 'user';
  return !/back|rear|environment/i.test(track.label);
}
