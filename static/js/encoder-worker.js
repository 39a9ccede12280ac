// Scales and encodes frames as JPEG off the main thread; encoder.js sends it one picture at a time.

let canvas = null;
let context = null;

self.onmessage = async ({ data }) => {
  const { image, width, height, quality, keep } = data;
  try {
    resize(width, height);
    context.drawImage(image, 0, 0, width, height);
    const blob = await canvas.convertToBlob({ type: 'image/jpeg', quality });
    // A browser that cannot encode what it is asked for gives PNG without a word.
    if (blob.type !== 'image/jpeg') throw new Error(`encoded as ${blob.type}`);
    const bytes = await blob.arrayBuffer();
    if (!keep) image.close();
    self.postMessage({ bytes, image: keep ? image : null }, keep ? [bytes, image] : [bytes]);
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
