"""A live stream between its state and the dispatcher: takes frames in turn, reports outcomes."""

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
from streamer.decoding.decode_job import DecoderLost
from streamer.imaging.frame import StreamFrame
from streamer.imaging.image_header import ImageError
from streamer.imaging.limits import Limits
from streamer.protocol import server_messages
from streamer.protocol.server_messages import Reported, Result, ServerMessage
from streamer.protocol.wire import DropReason, ProtocolError
from streamer.sampling.sampler import Observation, Sampler, boxes_above, with_low_threshold
from streamer.scheduling.client import NOBODY, Client
from streamer.scheduling.errors import DeadlineExceeded, Unavailable
from streamer.scheduling.job import Job
from streamer.scheduling.prediction import Prediction
from streamer.streams.flow_control import Stream
from streamer.streams.session import Session

log = logging.getLogger("streamer.live_stream")

#: Drops are told together with the next result, or after this: a frame or two of a camera.
TELL_DROPS_S = 0.05


class Carrier(Protocol):
    """What carries the stream's messages: a connection of whichever transport."""

    session: Session
    version: str
    metrics: WorkerMetrics
    limits: Limits
    #: A live frame older than this at dispatch is stale.
    max_age_s: float

    def send_all(self, messages: list[ServerMessage]) -> None:
        """Queue messages; never waits."""


class LiveStream:
    """Connects one stream's state with the dispatcher and the connection that carries it."""

    _keys = itertools.count(1)

    def __init__(
        self, carrier: Carrier, stream: Stream, sampler: Sampler | None = None, client: Client = NOBODY
    ) -> None:
        self.key = next(self._keys)
        self.stream = stream
        #: Whom its frames are charged to.
        self.client = client
        #: None where frames of this stream are not to be kept.
        self.sampler = sampler
        self.declared_fps = stream.fps
        self._carrier = carrier
        self._tracked_breaks = stream.breaks
        #: Set while drops wait to be told together.
        self._telling: asyncio.TimerHandle | None = None
        self._mailbox_s = carrier.metrics.stage_s.labels("mailbox", carrier.version)

    @property
    def pending(self) -> bool:
        """Whether a frame waits."""
        return self.stream.pending

    def wants_turn(self, now: float) -> bool:
        """Whether a frame waits that may start now."""
        return self.stream.wants_turn(now)

    def take(self, now: float) -> Job | None:
        """Take the newest frame, with the parameters in force at this moment."""
        carrier, stream = self._carrier, self.stream
        waiting, messages = stream.take(now, carrier.max_age_s)
        carrier.send_all(messages)
        if waiting is None:
            return None
        frame, arrived = waiting.frame, waiting.arrived
        self._mailbox_s.observe(now - arrived)
        session = carrier.session
        params, cfg, track, breaks = session.params, session.cfg, session.track, stream.breaks
        chosen = self.sampler is not None and self.sampler.wants(now)

        def finish(outcome: Prediction | Exception) -> None:
            if isinstance(outcome, Prediction):
                if self.sampler is not None:
                    outcome = _show(self.sampler, frame, arrived, params, outcome, chosen=chosen)
                rows = self._track(frame, outcome.boxes, breaks) if track else outcome.boxes
                self._result(frame, arrived, now, cfg, outcome, rows)
            else:
                self._no_result(frame, outcome)

        deadline = arrived + carrier.max_age_s if stream.mode == "live" else math.inf
        job = Job(
            frame.payload,
            frame.rotation,
            with_low_threshold(params) if chosen else params,
            deadline,
            self.key,
            finish,
            carrier.limits,
        )
        job.client = self.client
        return job

    def tell_drops_soon(self) -> None:
        """Make sure that drops reach the client in a moment, also while its next result is far away.

        Otherwise its window stays shut, the frame that waits grows old, and under load it would be stale
        by its turn, every time.
        """
        if self._telling is None and self.stream.owes_drops:
            self._telling = asyncio.get_running_loop().call_later(TELL_DROPS_S, self._tell_drops)

    def _tell_drops(self) -> None:
        self._telling = None
        messages = self.stream.tell_drops()
        if messages:
            self._carrier.send_all(messages)

    def close(self) -> None:
        """The carrier is gone: drop what waits, tell nobody."""
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        if self.sampler is not None:
            self.sampler.close()
        self.stream.abandon()

    def report(self, note: str) -> Reported:
        """Hand the last frame over because a person asks for it; returns the answer to the client.

        Raises ProtocolError when there is none that may be kept.
        """
        number = self.stream.number
        if self.sampler is None:
            raise ProtocolError(
                "frames of this stream are not kept: its client said `collect` false, or the server says so",
                code="not_collected",
                field="stream",
            )
        taken = self.sampler.report(note)
        if taken is None:
            raise ProtocolError(
                f"stream {number} has no result yet", code="nothing_to_report", field="stream"
            )
        seq, accepted = taken
        return server_messages.reported(number, seq, taken=accepted)

    def grant(self, max_fps: float | None) -> None:
        """Tell the client its fair rate."""
        self._carrier.send_all(
            self.stream.limit_rate(max_fps, "overload" if max_fps is not None else "relieved")
        )

    def _track(self, frame: StreamFrame, boxes: Boxes, breaks: int) -> npt.NDArray[np.float32]:
        """Return boxes with a column of track ids; a break in the picture begins anew."""
        tracker = self._carrier.session.tracker(self.stream.number)
        if breaks != self._tracked_breaks:
            self._tracked_breaks = breaks
            tracker.reset()
        return tracker.update(boxes, frame.ts)

    def _result(
        self,
        frame: StreamFrame,
        arrived: float,
        taken: float,
        cfg: int,
        prediction: Prediction,
        boxes: npt.NDArray[np.float32],
    ) -> None:
        carrier, stream = self._carrier, self.stream
        messages = stream.answered(frame.seq)
        result: Result = {
            "type": "result",
            "stream": stream.number,
            "seq": frame.seq,
            **frame.stamp(),
            "epoch": frame.epoch,
            "cfg": cfg,
            "width": prediction.width,
            "height": prediction.height,
            "boxes": _rows(boxes) if len(boxes) else [],
            **stream.result_fields(),  # type: ignore[typeddict-item]  # `damaged` is set below or absent
            "t": {
                "queue_ms": round((taken - arrived) * 1e3 + prediction.queue_ms, 2),
                "infer_ms": round(prediction.inference_ms, 2),
                "server_ms": round((time.monotonic() - arrived) * 1e3, 2),
            },
        }
        if prediction.damaged:
            result["damaged"] = True
        messages.append(result)
        carrier.send_all(messages)

    def _no_result(self, frame: StreamFrame, error: Exception) -> None:
        stream = self.stream
        if isinstance(error, DeadlineExceeded):
            messages = stream.dropped(frame.seq, DropReason.STALE)
        elif isinstance(error, ImageError):
            messages = stream.dropped(frame.seq, DropReason.DECODE_ERROR, str(error))
        elif isinstance(error, InferenceFailed):
            messages = stream.failed(frame.seq, "inference_failed", "the model failed on this frame")
        elif isinstance(error, InferenceLost | Unavailable):
            messages = stream.failed(
                frame.seq, "inference_restarting", "the inference process was restarted; send on", 500
            )
        elif isinstance(error, DecoderLost):
            messages = stream.failed(
                frame.seq, "decoder_restarting", "the decoder of this frame was restarted; send on", 100
            )
        else:
            log.error("a frame failed", exc_info=error)
            messages = stream.failed(frame.seq, "server_fault", "the server failed on this frame; send on")
        self._carrier.send_all(messages)


def _show(
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
        return asked  # nobody learns from half a picture
    observation = Observation(
        frame.payload,
        frame.seq,
        frame.rotation,
        arrived,
        time.time() - (time.monotonic() - arrived),
        prediction.width,
        prediction.height,
        params,
        asked.boxes,
    )
    sampler.add(observation, prediction.boxes if chosen else None)
    return asked


def _rows(boxes: npt.NDArray[np.float32]) -> list[list[float]]:
    """Return boxes as a client gets them: pixels to two places, scores to four, ids whole."""
    rows: list[list[float]] = boxes.astype("float64").round(2).tolist()
    for row, box in zip(rows, boxes.tolist(), strict=True):
        row[4] = round(box[4], 4)
        row[5:] = [int(value) for value in box[5:]]
    return rows
