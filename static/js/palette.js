// One colour per class, the same every time, told apart by colour-blind people too; pure.

/** Hues of Okabe and Ito's set, lifted for dark pictures; neighbours differ in lightness as well. */
const COLOURS = ['#5cc8ff', '#ffb000', '#3ddc97', '#ff8fc7', '#f7e463', '#ff7847', '#a79bff', '#e8eef4'];

/**
 * @param {number} classId
 * @returns {string} `#rrggbb`; light enough for black text on it
 */
export function classColour(classId) {
  return COLOURS[classId % COLOURS.length];
}

/**
 * @param {number} classId
 * @returns {number[]} dash pattern that tells apart classes that share a colour; empty: a solid line
 */
export function classDash(classId) {
  return [[], [10, 5], [3, 4]][Math.floor(classId / COLOURS.length) % 3];
}
