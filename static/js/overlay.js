// Draws boxes with their label chips onto a canvas; where they go is geometry.js, in which colour palette.js.

import { boxToStage } from './geometry.js';
import { classColour, classDash } from './palette.js';

const LINE_CSS_PX = 2.5;
const FONT_CSS_PX = 13;
const INK = '#0b0f14';

/**
 * @param {CanvasRenderingContext2D} context
 * @param {object} scene
 * @param {number[][]} scene.boxes rows x1, y1, x2, y2, score, class id, track id if there is one
 * @param {{width: number, height: number}} scene.frame size that the boxes refer to
 * @param {object} scene.placement where the frame lies on the canvas, in its pixels
 * @param {string[]} scene.labels
 * @param {number} scene.pixelRatio canvas pixels per CSS pixel
 */
export function drawBoxes(context, { boxes, frame, placement, labels, pixelRatio }) {
  const limits = { width: context.canvas.width, height: context.canvas.height };
  context.save();
  context.font = `600 ${FONT_CSS_PX * pixelRatio}px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif`;
  context.textBaseline = 'middle';
  context.lineJoin = 'round';
  // Weak ones first: the sure ones lie on top.
  for (const row of [...boxes].sort((a, b) => a[4] - b[4])) {
    const rect = boxToStage(row, frame, placement);
    drawFrame(context, rect, row[5], pixelRatio);
    drawChip(context, rect, chipText(row, labels), classColour(row[5]), pixelRatio, limits);
  }
  context.restore();
}

function drawFrame(context, rect, classId, pixelRatio) {
  const line = LINE_CSS_PX * pixelRatio;
  // A dark rim under the colour: visible on snow as well as on asphalt.
  context.setLineDash([]);
  context.lineWidth = line + 2 * pixelRatio;
  context.strokeStyle = 'rgb(0 0 0 / 0.45)';
  context.strokeRect(rect.x, rect.y, rect.width, rect.height);
  context.setLineDash(classDash(classId).map((part) => part * pixelRatio));
  context.lineWidth = line;
  context.strokeStyle = classColour(classId);
  context.strokeRect(rect.x, rect.y, rect.width, rect.height);
}

function chipText(row, labels) {
  const name = labels[row[5]] ?? `class ${row[5]}`;
  const track = row.length > 6 && row[6] !== null ? ` #${row[6]}` : '';
  return `${name}${track} ${Math.round(row[4] * 100)}%`;
}

/** Above the box where there is room, else inside it; never outside the canvas. */
function drawChip(context, rect, text, colour, pixelRatio, limits) {
  const pad = 5 * pixelRatio;
  const height = (FONT_CSS_PX + 7) * pixelRatio;
  const width = context.measureText(text).width + 2 * pad;
  const rim = (LINE_CSS_PX / 2) * pixelRatio;
  const above = rect.y - rim - height;
  const x = Math.max(0, Math.min(rect.x - rim, limits.width - width));
  const y = above >= 0 ? above : Math.max(0, rect.y - rim);
  context.fillStyle = colour;
  context.beginPath();
  if (context.roundRect) context.roundRect(x, y, width, height, 3 * pixelRatio);
  else context.rect(x, y, width, height);
  context.fill();
  context.fillStyle = INK;
  context.fillText(text, x + pad, y + height / 2 + 0.5 * pixelRatio);
}
