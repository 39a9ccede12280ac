// Exposes a read-only view of the page's state as `window.demo`, for the browser's console and for tests.

/** @param {object} app see app.js */
export function exposeDebugState(app) {
  window.demo = Object.freeze({
    /** Newest result message; null: none. */
    get latest() {
      return app.latestResult;
    },
    /** What the canvas shows now: boxes, the frame size they refer to, and where the frame lies. */
    get drawn() {
      return app.stage.drawn;
    },
    get connection() {
      const { state, sessionsOpened, unsentBytes } = app.transport;
      return { ...state, sessionsOpened, unsentBytes };
    },
    /** Selected and active transport, why they differ, and the quality of the WebRTC network. */
    get transport() {
      const { active, fallbackReason, webRtc } = app.transport;
      return { selected: app.settings.transport, active, fallbackReason, quality: webRtc.quality };
    },
    get flow() {
      const { flow, epoch, pending } = app.pipeline;
      const { nextSeq, ack, win, maxFps, targetFps } = flow;
      return { nextSeq, ack, win, maxFps, targetFps, epoch, inFlight: pending.size };
    },
    get counts() {
      const { sentCount, resultCount, dropped, skipped } = app.pipeline.measurements;
      return { sent: sentCount, results: resultCount, dropped: dropped.total, skipped: skipped.total };
    },
    /** Number of results of each further stream. */
    get tiles() {
      return app.wall.resultCounts;
    },
    /** Delay from capture to painted boxes in ms, and whether capture times are the camera's or the page's. */
    get delay() {
      const { delay } = app.pipeline.measurements;
      return { p50: delay.quantile(0.5), p95: delay.quantile(0.95), origin: delay.origin, count: delay.values.length };
    },
    /** The view that the user has chosen, and the one in effect. */
    get view() {
      return { setting: app.settings.view, effective: app.stage.view };
    },
    /** Whether results are current: `idle`, `waiting`, `current`, `stale` or `paused`. */
    get results() {
      return app.resultsStatus.state;
    },
    /** The photos with their states, the selected one, and the text that is shown to be copied. */
    get photos() {
      return app.photos.debugState;
    },
    /** Drift: status, groups that are listed, and the outcome of the last update of the reference. */
    get drift() {
      return app.driftPanel.debugState;
    },
    /** Kind of the error that is shown; null: none. */
    get error() {
      return app.errorPanel.kind;
    },
    /** Where frames are encoded as JPEG: `worker` or `canvas`. */
    get encoder() {
      return app.pipeline.encoderBackend;
    },
  });
}
