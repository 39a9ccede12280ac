// The one mapping between a frame and the stage: contain or cover, mirrored or not; pure.

/**
 * Place a picture on the stage.
 * @param {{width: number, height: number}} source picture size in pixels
 * @param {{width: number, height: number}} stage stage size, in the unit that the result shall have
 * @param {'contain' | 'cover'} fit
 * @param {boolean} mirror left and right exchanged
 * @returns {{left: number, top: number, width: number, height: number, mirror: boolean}}
 */
export function place(source, stage, fit, mirror) {
  const across = stage.width / source.width;
  const down = stage.height / source.height;
  const scale = fit === 'cover' ? Math.max(across, down) : Math.min(across, down);
  const width = source.width * scale;
  const height = source.height * scale;
  return { left: (stage.width - width) / 2, top: (stage.height - height) / 2, width, height, mirror };
}

/**
 * Map a box of a frame onto the stage. The frame may have been sent smaller than the source: only
 * the proportion counts.
 * @param {number[]} box x1, y1, x2, y2 in pixels of the frame
 * @param {{width: number, height: number}} frame size that the box refers to
 * @param {{left: number, top: number, width: number, height: number, mirror: boolean}} placement
 * @returns {{x: number, y: number, width: number, height: number}} in the placement's unit
 */
export function boxToStage(box, frame, placement) {
  const [x1, y1, x2, y2] = box;
  const across = placement.width / frame.width;
  const down = placement.height / frame.height;
  const near = placement.mirror ? frame.width - x2 : x1;
  return {
    x: placement.left + near * across,
    y: placement.top + y1 * down,
    width: (x2 - x1) * across,
    height: (y2 - y1) * down,
  };
}

/**
 * Return the size to send a picture in: never enlarged, longest side at most `side` pixels.
 * @param {number} width
 * @param {number} height
 * @param {number} side
 */
export function shrink(width, height, side) {
  const factor = Math.min(1, side / Math.max(width, height));
  return { width: Math.max(1, Math.round(width * factor)), height: Math.max(1, Math.round(height * factor)) };
}
