"""Connects the flow control of a stream with the dispatcher: starts frames and reports their outcomes."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
import math
import time
from typing import Protocol

import numpy as np
import numpy.typing as npt

from inference.core.detection_params import DetectionParams
from inference.core.detections import Boxes
from inference.core.errors import InferenceFailed, InferenceLost
from streamer.accounting.metrics import WorkerMetrics
from streamer.accounting.tracing import Trace, Traces, Value
from streamer.core import clock
from streamer.decoding.decode_job import DecoderLost
from streamer.http.trace_context import current_trace_context
from streamer.imaging.frame import StreamFrame
from streamer.imaging.image_header import ImageError, Limits
from streamer.protocol import server_messages
from streamer.protocol.server_messages import Result, ServerMessage
from streamer.protocol.wire import DropReason, ProtocolError
from streamer.sampling.reports import ReportOutcome
from streamer.sampling.sampler import Observation, Sampler, boxes_above, with_low_threshold
from streamer.sampling.shadow import ShadowStream
from streamer.scheduling.clients import NOBODY, Client
from streamer.scheduling.errors import DeadlineExceeded, Unavailable
from streamer.scheduling.job import Job, Prediction
from streamer.streams.flow_control import FlowControl
from streamer.streams.session import Session
from streamer.streams.stream_codes import StreamCodes

log = logging.getLogger("streamer.live_stream")

#: Drops are sent before the next outcome, or after this time, in which a camera sends one or two frames.
DROPS_DELAY_S = 0.05


class StreamConnection(Protocol):
    """Describes the connection, of any transport, to which a stream belongs."""

    session: Session
    version: str
    metrics: WorkerMetrics
    limits: Limits
    #: A live frame that is older than this when the dispatcher takes it is dropped as stale.
    max_age_s: float

    def send_all(self, messages: list[ServerMessage]) -> None:
        """Queue messages without waiting."""


class StreamHandle:
    """Represents one open stream to the dispatcher, which takes frames from it and reports their outcomes."""

    _keys = itertools.count(1)

    def __init__(
        self,
        connection: StreamConnection,
        flow: FlowControl,
        sampler: Sampler | None = None,
        client: Client = NOBODY,
        codes: StreamCodes | None = None,
        shadow: ShadowStream | None = None,
    ) -> None:
        self.key = next(self._keys)
        self.flow = flow
        #: The client to which its frames are charged.
        self.client = client
        #: Chooses frames to keep as samples; None if frames of this stream must not be kept.
        self.sampler = sampler
        self.declared_fps = flow.fps
        #: Reads the codes of its frames; None if the service reads none.
        self._codes = codes
        #: Takes answered frames that may run on another version, too; None if none of this stream does.
        self._shadow = shadow
        self._connection = connection
        self._tracked_breaks = flow.breaks
        self._closed = False
        #: Timer that sends the waiting drops; None if it is not running.
        self._drops_timer: asyncio.TimerHandle | None = None
        #: Receives the traces of frames; None if no traces are exported.
        self._traces = connection.metrics.traces
        #: Trace context of the request that opened the stream; None if its client sent none.
        self._opened_in = None if self._traces is None else current_trace_context()
        self._mailbox_s = connection.metrics.stage_s.labels("mailbox", connection.version)

    @property
    def pending(self) -> bool:
        """Whether a frame waits, even if it may not start now."""
        return self.flow.pending

    def has_ready_frame(self, now: float) -> bool:
        """Return whether a frame waits that may start now."""
        return self.flow.has_ready_frame(now)

    def take(self, now: float) -> Job | None:
        """Start the next frame with the parameters that are now in effect; return None if there is none."""
        connection, flow = self._connection, self.flow
        waiting, messages = flow.take(now, connection.max_age_s)
        if messages:
            connection.send_all(messages)
        if waiting is None:
            return None
        frame, arrived = waiting.frame, waiting.arrived
        self._mailbox_s.observe(now - arrived)
        session = connection.session
        params, cfg, track, breaks = session.params, session.cfg, session.track, flow.breaks
        chosen = self.sampler is not None and self.sampler.wants(now)

        def finish(outcome: Prediction | Exception) -> None:
            done = 0.0 if self._traces is None else clock.monotonic()
            if isinstance(outcome, Prediction):
                if self.sampler is not None:
                    outcome = _offer_sample(self.sampler, frame, arrived, params, outcome, chosen=chosen)
                rows = self._track(frame, outcome.boxes, breaks) if track else outcome.boxes
                if self._codes is not None:
                    outcome.codes = self._codes.texts(outcome.boxes, frame.ts, breaks)
                self._send_result(frame, arrived, now, cfg, outcome, rows)
                if self._codes is not None:
                    self._codes.read(frame, outcome)
                if self._shadow is not None:
                    self._shadow.offer(frame.seq, frame.payload, frame.rotation, arrived, params, outcome)
            else:
                self._send_failure(frame, outcome)
            if self._traces is not None:
                self._put_trace(self._traces, frame, arrived, done, outcome)

        deadline = arrived + connection.max_age_s if flow.mode == "live" else math.inf
        job = Job(
            frame.payload,
            frame.rotation,
            with_low_threshold(params) if chosen else params,
            deadline,
            self.key,
            finish,
            connection.limits,
        )
        job.client, job.labels = self.client, session.labels
        return job

    def send_drops_soon(self) -> None:
        """Send waiting drops after `DROPS_DELAY_S`, unless they are sent with an outcome before then.

        Otherwise, dropped frames would occupy the client's window until its next result. Under load, the
        client could then send no newer frame, and the frame that waits would always be stale by its turn.
        """
        if self._drops_timer is None and self.flow.has_unsent_drops:
            self._drops_timer = asyncio.get_running_loop().call_later(DROPS_DELAY_S, self._send_drops)

    def _send_drops(self) -> None:
        self._drops_timer = None
        messages = self.flow.take_drops()
        if messages:
            self._connection.send_all(messages)

    def close(self) -> None:
        """Drop the frames that wait, because the connection is gone."""
        if self._drops_timer is not None:
            self._drops_timer.cancel()
            self._drops_timer = None
        self._closed = True
        if self.sampler is not None:
            self.sampler.close()
        self.flow.abandon()

    def renew(self, sampler: Sampler | None, codes: StreamCodes | None) -> None:
        """Continue with another model: with a sampler and a reader of codes that know it."""
        if self.sampler is not None:
            self.sampler.close()
        self.sampler, self._codes = sampler, codes

    def report(self, note: str) -> None:
        """Give the last frame to the sampler because a person reports it; the answer is sent when it is sure.

        Raises ProtocolError if frames of the stream must not be kept, or if it has no result yet.
        """
        number = self.flow.number
        if self.sampler is None:
            raise ProtocolError(
                "frames of this stream are not kept: its client said `collect` false, or the server says so",
                code="not_collected",
                field="stream",
            )
        if not self.sampler.report(note, self._send_reported):
            raise ProtocolError(
                f"stream {number} has no result yet", code="nothing_to_report", field="stream"
            )

    def _send_reported(self, seq: int, outcome: ReportOutcome) -> None:
        if self._closed:
            return  # the sample is kept, but nobody is there to be told
        self._connection.send_all(
            [
                server_messages.reported(
                    self.flow.number,
                    seq,
                    taken=outcome.taken,
                    sample=outcome.sample,
                    reason=outcome.reason,
                    text=outcome.message,
                    retry_s=outcome.retry_s,
                )
            ]
        )

    def grant(self, max_fps: float | None) -> None:
        """Send the client the frame rate that it is granted, in frames per second; None means no limit."""
        self._connection.send_all(
            self.flow.limit_rate(max_fps, "overload" if max_fps is not None else "relieved")
        )

    def _track(self, frame: StreamFrame, boxes: Boxes, breaks: int) -> npt.NDArray[np.float32]:
        """Return the boxes with a column of track ids; tracks restart after a discontinuity."""
        tracker = self._connection.session.tracker(self.flow.number)
        if breaks != self._tracked_breaks:
            self._tracked_breaks = breaks
            tracker.reset()
        return tracker.update(boxes, frame.ts)

    def _send_result(
        self,
        frame: StreamFrame,
        arrived: float,
        taken: float,
        cfg: int,
        prediction: Prediction,
        boxes: npt.NDArray[np.float32],
    ) -> None:
        connection, flow = self._connection, self.flow
        messages = flow.answered(frame.seq)
        connection.metrics.boxes.count(connection.version, connection.session.labels, prediction.boxes)
        result: Result = {
            "type": "result",
            "stream": flow.number,
            "seq": frame.seq,
            **frame.stamp(),
            "epoch": frame.epoch,
            "cfg": cfg,
            "width": prediction.width,
            "height": prediction.height,
            "boxes": _rows(boxes) if len(boxes) else [],
            **flow.result_fields(),  # type: ignore[typeddict-item]  # two fields are set below or absent
            "t": {
                "queue_ms": round((taken - arrived) * 1e3 + prediction.queue_ms, 2),
                "infer_ms": round(prediction.inference_ms, 2),
                "server_ms": round((clock.monotonic() - arrived) * 1e3, 2),
            },
        }
        if prediction.damaged:
            result["damaged"] = True
        if prediction.reduced > 1:
            result["reduced"] = prediction.reduced
        if prediction.codes and any(prediction.codes):
            result["text"] = [code and code.text for code in prediction.codes]
            result["format"] = [code and code.format for code in prediction.codes]
        messages.append(result)
        connection.send_all(messages)

    def _put_trace(
        self, traces: Traces, frame: StreamFrame, arrived: float, done: float, outcome: Prediction | Exception
    ) -> None:
        """Export the trace of a frame whose outcome was known at ``done`` and has just been sent."""
        attributes: dict[str, Value] = {
            "detect.version": self._connection.version,
            "detect.stream": self.flow.number,
            "detect.seq": frame.seq,
        }
        trace = Trace("frame", arrived, self._opened_in, attributes)
        # This stage has no length: only the moment is known at which the last byte of the frame had arrived.
        trace.add("receive", arrived, arrived)
        now = clock.monotonic()
        if isinstance(outcome, Prediction):
            trace.add_prediction(outcome, arrived, done)
            trace.add("send", done, now)
        traces.put(trace, now, "" if isinstance(outcome, Prediction) else type(outcome).__name__)

    def _send_failure(self, frame: StreamFrame, error: Exception) -> None:
        flow = self.flow
        if isinstance(error, DeadlineExceeded):
            messages = flow.dropped(frame.seq, DropReason.STALE)
        elif isinstance(error, ImageError):
            messages = flow.dropped(frame.seq, DropReason.DECODE_ERROR, str(error))
        elif isinstance(error, InferenceFailed):
            messages = flow.failed(frame.seq, "inference_failed", "the model failed on this frame")
        elif isinstance(error, InferenceLost | Unavailable):
            messages = flow.failed(
                frame.seq, "inference_restarting", "the inference process was restarted; send on", 500
            )
        elif isinstance(error, DecoderLost):
            messages = flow.failed(
                frame.seq, "decoder_restarting", "the decoder of this frame was restarted; send on", 100
            )
        else:
            log.error("a frame failed", exc_info=error)
            messages = flow.failed(frame.seq, "server_fault", "the server failed on this frame; send on")
        self._connection.send_all(messages)


def _offer_sample(
    sampler: Sampler,
    frame: StreamFrame,
    arrived: float,
    params: DetectionParams,
    prediction: Prediction,
    *,
    chosen: bool,
) -> Prediction:
    """Pass a detection to the stream's sampler; return it with the boxes that the client requested."""
    asked = prediction
    if chosen:
        asked = dataclasses.replace(prediction, boxes=boxes_above(prediction.boxes, params.conf_threshold))
    if prediction.damaged:
        return asked  # an incomplete frame is not useful as a sample
    observation = Observation(
        frame.payload,
        frame.seq,
        frame.rotation,
        arrived,
        time.time() - (clock.monotonic() - arrived),
        prediction.width,
        prediction.height,
        params,
        asked.boxes,
    )
    sampler.add(observation, prediction.boxes if chosen else None)
    return asked


def _rows(boxes: npt.NDArray[np.float32]) -> list[list[float]]:
    """Return boxes as clients get them: pixels with two decimals, scores with four, ids as integers."""
    rows: list[list[float]] = boxes.astype("float64").round(2).tolist()
    for row, box in zip(rows, boxes.tolist(), strict=True):
        row[4] = round(box[4], 4)
        row[5:] = [int(value) for value in box[5:]]
    return rows
