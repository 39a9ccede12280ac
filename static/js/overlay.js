// Draws boxes and their labels on a canvas.

import { boxToStage } from './geometry.js';
import { classColour, classDash } from './palette.js';

const LINE_WIDTH_CSS_PX = 2.5;
const FONT_SIZE_CSS_PX = 13;
const LABEL_TEXT_COLOUR = '#0b0f14';

/**
 * @typedef {object} Scene
 * @property {number[][]} boxes rows of x1, y1, x2, y2, score, class id, and track id if objects are tracked
 * @property {{width: number, height: number}} frame size that the boxes refer to
 * @property {import('./geometry.js').Placement} placement where the frame lies on the canvas, in canvas pixels
 * @property {string[]} labels names of the classes, by class id
 * @property {number} pixelRatio canvas pixels per CSS pixel
 */

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Scene} scene
 */
export function drawBoxes(context, { boxes, frame, placement, labels, pixelRatio }) {
  const canvasSize = { width: context.canvas.width, height: context.canvas.height };
  context.save();
  context.font = `600 ${FONT_SIZE_CSS_PX * pixelRatio}px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif`;
  context.textBaseline = 'middle';
  context.lineJoin = 'round';
  // Draw boxes with a low score first, so that those with a high score lie on top.
  for (const box of [...boxes].sort((a, b) => a[4] - b[4])) {
    const rect = boxToStage(box, frame, placement);
    drawOutline(context, rect, box[5], pixelRatio);
    drawLabel(context, rect, labelText(box, labels), classColour(box[5]), pixelRatio, canvasSize);
  }
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

function labelText(box, labels) {
  const name = labels[box[5]] ?? `class ${box[5]}`;
  const track = box.length > 6 && box[6] !== null ? ` #${box[6]}` : '';
  return `${name}${track} ${Math.round(box[4] * 100)}%`;
}

/** Draw the label above the box, or inside it if there is no room above; always within the canvas. */
function drawLabel(context, rect, text, colour, pixelRatio, canvasSize) {
  const padding = 5 * pixelRatio;
  const height = (FONT_SIZE_CSS_PX + 7) * pixelRatio;
  const width = context.measureText(text).width + 2 * padding;
  const outline = (LINE_WIDTH_CSS_PX / 2) * pixelRatio;
  const above = rect.y - outline - height;
  const x = Math.max(0, Math.min(rect.x - outline, canvasSize.width - width));
  const y = above >= 0 ? above : Math.max(0, rect.y - outline);
  context.fillStyle = colour;
  context.beginPath();
  if (context.roundRect) context.roundRect(x, y, width, height, 3 * pixelRatio);
  else context.rect(x, y, width, height);
  context.fill();
  context.fillStyle = LABEL_TEXT_COLOUR;
  context.fillText(text, x + padding, y + height / 2 + 0.5 * pixelRatio);
}
