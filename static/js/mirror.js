// Decides whether the video is mirrored: as people see themselves, unless there is something to read. Pure.

/** Words in names of classes whose objects have text or codes on them: mirrored, nobody can read these. */
const TEXT_WORDS = new Set(
  ['aztec', 'barcode', 'character', 'code', 'datamatrix', 'digit', 'document', 'ean', 'label', 'letter', 'licence'].concat(
    ['license', 'matrix', 'number', 'ocr', 'page', 'pdf417', 'plate', 'qr', 'qrcode', 'receipt', 'sign', 'text', 'upc', 'word'],
  ),
);

/** @param {string} label @returns {boolean} whether objects of this class are read, such as codes, plates and signs */
export function isTextLabel(label) {
  return label
    .toLowerCase()
    .split(/[^a-z0-9]+/)
    .some((word) => TEXT_WORDS.has(word) || TEXT_WORDS.has(word.replace(/s$/, '')));
}

/** @param {string[]} labels of a model @returns {boolean} whether it mostly finds what is read */
export function isTextModel(labels) {
  return labels.length > 0 && labels.filter(isTextLabel).length * 2 >= labels.length;
}

/**
 * @param {object} state
 * @param {boolean | undefined} state.choice the user's choice for this source; undefined: none
 * @param {boolean} state.isUserFacing whether a camera plays that faces the user
 * @param {string[]} state.labels classes of the model
 * @param {boolean} state.hasSeenText whether this source has shown an object that is read
 * @returns {boolean}
 */
export function isMirrored({ choice, isUserFacing, labels, hasSeenText }) {
  return choice ?? (isUserFacing && !hasSeenText && !isTextModel(labels));
}
