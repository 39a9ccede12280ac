// Looks at every encoded frame on its way to the network, and tells the page its RTP timestamp, size and time.

onrtctransform = ({ transformer }) => {
  const tell = new TransformStream({
    transform(frame, controller) {
      const { width = 0, height = 0 } = frame.getMetadata();
      const rtp = frame.getMetadata().rtpTimestamp ?? frame.timestamp;
      postMessage({ rtp, bytes: frame.data.byteLength, width, height, atMs: performance.timeOrigin + performance.now() });
      controller.enqueue(frame);
    },
  });
  transformer.readable.pipeThrough(tell).pipeTo(transformer.writable).catch(() => {});
};
