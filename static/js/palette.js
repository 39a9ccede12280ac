// Assigns each class a colour that is always the same and can be told apart with colour blindness, and writes scores.
// Pure. streamer/imaging/palette.py has the same colours and texts for the commands; a test compares both.

/** Colours of Okabe and Ito, lightened for dark backgrounds. Neighbours also differ in lightness. */
const COLOURS = ['#5cc8ff', '#ffb000', '#3ddc97', '#ff8fc7', '#f7e463', '#ff7847', '#a79bff', '#e8eef4'];
const DASH_PATTERNS = [[], [10, 5], [3, 4]];

/**
 * @param {number} classId
 * @returns {string} `#rrggbb`; light enough for dark text on it
 */
export function classColour(classId) {
  return COLOURS[classId % COLOURS.length];
}

/**
 * Return the dash pattern that distinguishes classes of the same colour.
 * @param {number} classId
 * @returns {number[]} lengths of dashes and gaps in CSS pixels; empty: a solid line
 */
export function classDash(classId) {
  return DASH_PATTERNS[Math.floor(classId / COLOURS.length) % DASH_PATTERNS.length];
}

/**
 * @param {number} score 0..1
 * @returns {string} whole percent
 */
export function scoreText(score) {
  return `${Math.floor(score * 100 + 0.5)}%`;
}
