// The texts of codes that the server has read, and how a label shows them. Pure.

const MAX_CHARACTERS = 40;

/**
 * Return the texts of codes in a result of a stream.
 * @param {{boxes: number[][], text?: (string | null)[]}} result `text`: by position of the box, absent where the
 *   server has read nothing
 * @returns {Map<number[], string>} text by row of `boxes`
 */
export function textsOf({ boxes, text }) {
  const texts = new Map();
  if (!text) return texts;
  boxes.forEach((row, index) => {
    if (typeof text[index] === 'string' && text[index]) texts.set(row, text[index]);
  });
  return texts;
}

/**
 * Shorten a text to what fits beside a box, in one line.
 * @param {string} text what a code contains: any characters, any length
 */
export function shortText(text) {
  // A few times the limit are enough; codes may contain thousands of characters.
  const characters = [...text.slice(0, 4 * MAX_CHARACTERS).replace(/[\s\p{C}]+/gu, ' ').trim()];
  const isWhole = characters.length <= MAX_CHARACTERS && text.length <= 4 * MAX_CHARACTERS;
  return isWhole ? characters.join('') : `${characters.slice(0, MAX_CHARACTERS - 1).join('')}…`;
}
