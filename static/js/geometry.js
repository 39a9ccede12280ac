// Maps frames and boxes onto the stage: contain or cover, mirrored or not. Pure.

/**
 * @typedef {object} Placement
 * @property {number} left position of the frame on the stage, in the stage's unit, as are the next three
 * @property {number} top
 * @property {number} width
 * @property {number} height
 * @property {boolean} mirror whether left and right are exchanged
 */

/**
 * Place a frame on the stage.
 * @param {{width: number, height: number}} frame size in pixels
 * @param {{width: number, height: number}} stage size, in the unit of the result
 * @param {'contain' | 'cover'} fit
 * @param {boolean} mirror whether left and right are exchanged
 * @returns {Placement}
 */
export function place(frame, stage, fit, mirror) {
  const scaleX = stage.width / frame.width;
  const scaleY = stage.height / frame.height;
  const scale = fit === 'cover' ? Math.max(scaleX, scaleY) : Math.min(scaleX, scaleY);
  const width = frame.width * scale;
  const height = frame.height * scale;
  return { left: (stage.width - width) / 2, top: (stage.height - height) / 2, width, height, mirror };
}

/**
 * Map a box onto the stage. The size that the box refers to may differ from the size of the source, because frames are
 * scaled down before they are sent.
 * @param {number[]} box x1, y1, x2, y2 in pixels of the frame
 * @param {{width: number, height: number}} frame size that the box refers to
 * @param {Placement} placement
 * @returns {{x: number, y: number, width: number, height: number}} in the placement's unit
 */
export function boxToStage(box, frame, placement) {
  const [x1, y1, x2, y2] = box;
  const scaleX = placement.width / frame.width;
  const scaleY = placement.height / frame.height;
  const left = placement.mirror ? frame.width - x2 : x1;
  return {
    x: placement.left + left * scaleX,
    y: placement.top + y1 * scaleY,
    width: (x2 - x1) * scaleX,
    height: (y2 - y1) * scaleY,
  };
}

/**
 * Scale a size down until its longest side fits. Sizes are never enlarged.
 * @param {number} width in pixels
 * @param {number} height in pixels
 * @param {number} maxSide in pixels
 * @returns {{width: number, height: number}} at least 1 pixel each
 */
export function fitWithin(width, height, maxSide) {
  const scale = Math.min(1, maxSide / Math.max(width, height));
  return { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)) };
}
