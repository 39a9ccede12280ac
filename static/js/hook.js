// A read-only view of the page's inside as `window.demo`, for the console and for tests.

/** @param {object} app the page, see app.js */
export function exposeDemo(app) {
  window.demo = Object.freeze({
    /** Newest result message, of whatever view. */
    get latest() {
      return app.latest;
    },
    /** What the canvas shows now: boxes, the frame they refer to, and where it lies. */
    get drawn() {
      return app.stage.drawn;
    },
    get connection() {
      const { state, opened, unsentBytes } = app.connection;
      return { ...state, opened, unsentBytes };
    },
    /** How frames travel: what was chosen, what is in use, why not the same, and how good the line is. */
    get transport() {
      const { kind, fallback, video } = app.connection;
      return { wanted: app.settings.transport, used: kind, fallback, line: video.quality };
    },
    get flow() {
      const { nextSeq, ack, win, maxFps, ownFps } = app.pipeline.flow;
      return { nextSeq, ack, win, maxFps, ownFps, epoch: app.pipeline.epoch, inFlight: app.pipeline.inFlight.size };
    },
    get counts() {
      const { sentCount, resultCount, dropped, skipped } = app.pipeline.measured;
      return { sent: sentCount, results: resultCount, dropped: dropped.total, skipped: skipped.total };
    },
    /** Kind of the problem on show, or null. */
    get problem() {
      return app.notice.kind;
    },
    /** `worker` or `canvas`. */
    get encoder() {
      return app.pipeline.encoderWay;
    },
  });
}
