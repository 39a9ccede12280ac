// Draws boxes and their labels on a canvas.

import { shortText } from './code-text.js';
import { boxToStage } from './geometry.js';
import { placeLabels } from './label-placement.js';
import { classColour, classDash, scoreText } from './palette.js';

const LINE_WIDTH_CSS_PX = 2.5;
const FONT_SIZE_CSS_PX = 13;
const LABEL_PADDING_CSS_PX = 5;
const LABEL_TEXT_COLOUR = '#0b0f14';

/**
 * @typedef {object} Scene
 * @property {number[][]} boxes rows of x1, y1, x2, y2, score, class id, and track id if objects are tracked
 * @property {{width: number, height: number}} frame size that the boxes refer to
 * @property {import('./geometry.js').Placement} placement where the frame lies on the canvas, in canvas pixels
 * @property {string[]} labels names of the classes, by class id
 * @property {Map<number[], string>} texts what codes contain, by row of `boxes`
 * @property {number} pixelRatio canvas pixels per CSS pixel
 */

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Scene} scene
 */
export function drawBoxes(context, { boxes, frame, placement, labels, texts, pixelRatio }) {
  const canvasSize = { width: context.canvas.width, height: context.canvas.height };
  context.save();
  context.font = `600 ${FONT_SIZE_CSS_PX * pixelRatio}px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif`;
  context.textBaseline = 'middle';
  context.lineJoin = 'round';
  const padding = LABEL_PADDING_CSS_PX * pixelRatio;
  const height = (FONT_SIZE_CSS_PX + 7) * pixelRatio;
  const items = [...boxes].sort(byImportance).map((row) => {
    const text = labelText(row, labels, texts.get(row));
    const box = boxToStage(row, frame, placement);
    return { row, box, text, width: context.measureText(text).width + 2 * padding, height };
  });
  // Draw the most important box last, so that it lies on top, and all labels above all boxes.
  for (const { row, box } of [...items].reverse()) drawOutline(context, box, row[5], pixelRatio);
  const places = placeLabels(items, canvasSize, (LINE_WIDTH_CSS_PX / 2) * pixelRatio);
  items.forEach((item, index) => {
    if (places[index]) drawLabel(context, item, places[index], pixelRatio);
  });
  context.restore();
}

function drawOutline(context, rect, classId, pixelRatio) {
  const lineWidth = LINE_WIDTH_CSS_PX * pixelRatio;
  // A dark border below the colour keeps the line visible on bright and on dark backgrounds.
  context.setLineDash([]);
  context.lineWidth = lineWidth + 2 * pixelRatio;
  context.strokeStyle = 'rgb(0 0 0 / 0.45)';
  context.strokeRect(rect.x, rect.y, rect.width, rect.height);
  context.setLineDash(classDash(classId).map((length) => length * pixelRatio));
  context.lineWidth = lineWidth;
  context.strokeStyle = classColour(classId);
  context.strokeRect(rect.x, rect.y, rect.width, rect.height);
}

function labelText(box, labels, text) {
  const name = labels[box[5]] ?? `class ${box[5]}`;
  const track = box.length > 6 && box[6] !== null ? ` #${box[6]}` : '';
  return `${name}${track} ${scoreText(box[4])}${text ? ` · ${shortText(text)}` : ''}`;
}

/**
 * Order rows of a result by score, and rows with about the same score by position: the scores of an object change with
 * each frame, and labels that changed places with them could not be read.
 */
function byImportance(a, b) {
  return Math.round(b[4] * 10) - Math.round(a[4] * 10) || a[1] - b[1] || a[0] - b[0];
}

function drawLabel(context, { row, text, width, height }, { x, y }, pixelRatio) {
  context.fillStyle = classColour(row[5]);
  context.beginPath();
  if (context.roundRect) context.roundRect(x, y, width, height, 3 * pixelRatio);
  else context.rect(x, y, width, height);
  context.fill();
  context.fillStyle = LABEL_TEXT_COLOUR;
  context.fillText(text, x + LABEL_PADDING_CSS_PX * pixelRatio, y + height / 2 + 0.5 * pixelRatio);
}
