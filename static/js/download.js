// Saves files that the page has made.

const REVOKE_URL_AFTER_MS = 10000;

/** Offer a file to the user. @param {Blob} blob @param {string} name */
export function saveFile(blob, name) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), REVOKE_URL_AFTER_MS);
}

/** @returns {string} the time in UTC as part of a file name, such as 2026-01-31-12-30-59 */
export function timestamp() {
  return new Date().toISOString().slice(0, 19).replace(/[T:]/g, '-');
}
