// Scales frames and encodes them as JPEG in a worker. jpeg-encoder.js sends one frame at a time.

let canvas = null;
let context = null;

self.onmessage = async ({ data }) => {
  const { image, width, height, quality, keepImage } = data;
  try {
    resize(width, height);
    context.drawImage(image, 0, 0, width, height);
    const blob = await canvas.convertToBlob({ type: 'image/jpeg', quality });
    // A browser that does not support the requested format returns PNG instead of an error.
    if (blob.type !== 'image/jpeg') throw new Error(`encoded as ${blob.type}`);
    const bytes = await blob.arrayBuffer();
    if (!keepImage) image.close();
    self.postMessage({ bytes, image: keepImage ? image : null }, keepImage ? [bytes, image] : [bytes]);
  } catch (error) {
    image.close();
    self.postMessage({ error: String(error) });
  }
};

function resize(width, height) {
  if (canvas?.width === width && canvas.height === height) return;
  canvas = new OffscreenCanvas(width, height);
  context = canvas.getContext('2d', { alpha: false });
  context.imageSmoothingQuality = 'medium';
}
