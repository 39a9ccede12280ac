// Finds places for the labels of boxes, so that no label hides another: above, below, inside, beside, or shifted. Pure.

/**
 * @typedef {object} Rect
 * @property {number} x left
 * @property {number} y top
 * @property {number} width
 * @property {number} height
 */

/** Labels are shifted by at most this many of their heights from the box. Farther away, nobody sees what they name. */
const MAX_SHIFT_ROWS = 4;

/**
 * Place the labels.
 * @param {{box: Rect, width: number, height: number}[]} items boxes with the size of their labels, the most important
 *   first: an earlier label keeps the better place. A label keeps a distance of `gap` from its box
 * @param {{width: number, height: number}} canvas labels stay within it
 * @param {number} gap in the unit of the boxes, as all lengths
 * @returns {({x: number, y: number} | null)[]} top left corner of each label, in the order of `items`; null: there is
 *   no free place near the box, so that this label has to be left out
 */
export function placeLabels(items, canvas, gap) {
  /** @type {Rect[]} */
  const placed = [];
  return items.map(({ box, width, height }) => {
    for (const { x, y } of candidates(box, width, height, gap)) {
      const label = {
        x: clamp(x, 0, canvas.width - width),
        y: clamp(y, 0, canvas.height - height),
        width,
        height,
      };
      if (placed.some((other) => overlap(label, other))) continue;
      placed.push(label);
      return { x: label.x, y: label.y };
    }
    return null;
  });
}

/** Yield places from the best to the worst. */
function* candidates(box, width, height, gap) {
  const right = box.x + box.width;
  const bottom = box.y + box.height;
  const left = { start: box.x - gap, end: right + gap - width };
  const rows = { above: box.y - gap - height, top: box.y - gap, bottom: bottom + gap - height, below: bottom + gap };
  // At the upper edge of the canvas, where nothing fits above, the label belongs inside the box.
  if (rows.above >= 0) yield { x: left.start, y: rows.above };
  yield { x: left.start, y: rows.top };
  yield { x: left.start, y: rows.below };
  if (rows.above >= 0) yield { x: left.end, y: rows.above };
  yield { x: left.end, y: rows.top };
  yield { x: left.end, y: rows.below };
  yield { x: left.start, y: rows.bottom };
  yield { x: left.end, y: rows.bottom };
  yield { x: right + gap, y: rows.top };
  yield { x: left.start - width, y: rows.top };
  for (let row = 1; row <= MAX_SHIFT_ROWS; row += 1) {
    for (const x of [left.start, left.end, right + gap, left.start - width]) {
      yield { x, y: rows.above - row * height };
      yield { x, y: rows.top + row * height };
      yield { x, y: rows.below + row * height };
    }
  }
}

function clamp(value, minimum, maximum) {
  return Math.max(minimum, Math.min(value, maximum));
}

function overlap(a, b) {
  return a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height;
}
