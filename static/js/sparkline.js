// A small line chart of the last values on a canvas; decoration beside the numbers.

/**
 * @param {HTMLCanvasElement} canvas
 * @param {number[]} values newest last
 * @param {number} size how many values fill the width
 */
export function drawSparkline(canvas, values, size) {
  const ratio = window.devicePixelRatio || 1;
  const width = Math.round(canvas.clientWidth * ratio);
  const height = Math.round(canvas.clientHeight * ratio);
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  const context = canvas.getContext('2d');
  context.clearRect(0, 0, width, height);
  if (values.length < 2) return;
  const top = Math.max(...values) * 1.1 || 1;
  const step = width / (size - 1);
  const first = width - step * (values.length - 1);
  context.beginPath();
  values.forEach((value, index) => {
    context.lineTo(first + index * step, height - ratio - (value / top) * (height - 2 * ratio));
  });
  context.strokeStyle = getComputedStyle(canvas).color;
  context.lineWidth = 1.5 * ratio;
  context.lineJoin = 'round';
  context.stroke();
  context.lineTo(width, height);
  context.lineTo(first, height);
  context.globalAlpha = 0.12;
  context.fillStyle = context.strokeStyle;
  context.fill();
  context.globalAlpha = 1;
}
