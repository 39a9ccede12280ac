// Reports RTP timestamp, size and time of each encoded WebRTC frame to the page, and passes the frame on unchanged.

onrtctransform = ({ transformer }) => {
  const reporter = new TransformStream({
    transform(frame, controller) {
      const { width = 0, height = 0 } = frame.getMetadata();
      const rtp = frame.getMetadata().rtpTimestamp ?? frame.timestamp;
      // The worker's performance.now() has another origin than the page's: send the time since the Unix epoch.
      const atMs = performance.timeOrigin + performance.now();
      postMessage({ rtp, bytes: frame.data.byteLength, width, height, atMs });
      controller.enqueue(frame);
    },
  });
  transformer.readable.pipeThrough(reporter).pipeTo(transformer.writable).catch(() => {});
};
