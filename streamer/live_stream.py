"""A live stream between its state and the dispatcher: takes frames in turn, reports outcomes."""

from __future__ import annotations

import itertools
import logging
import time
from typing import Any, Protocol

from inference import InferenceFailed, InferenceLost
from streamer.dispatch import DeadlinePassed, Job
from streamer.image_header import ImageError
from streamer.limits import Limits
from streamer.metrics import WorkerMetrics
from streamer.prediction import Prediction
from streamer.problems import Problem
from streamer.protocol import DropReason, Frame
from streamer.session import Session
from streamer.stream import Stream

log = logging.getLogger("streamer.live_stream")


class Carrier(Protocol):
    """What carries the stream's messages: a connection of whichever transport."""

    session: Session
    version: str
    metrics: WorkerMetrics
    limits: Limits
    #: A live frame older than this at dispatch is stale.
    max_age_s: float

    def send_all(self, messages: list[dict[str, Any]]) -> None:
        """Queue messages; never waits."""


class LiveStream:
    """Connects one stream's state with the dispatcher and the connection that carries it."""

    _keys = itertools.count(1)

    def __init__(self, carrier: Carrier, stream: Stream) -> None:
        self.key = next(self._keys)
        self.stream = stream
        self.declared_fps = stream.fps
        self._carrier = carrier

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
        carrier.metrics.stage_s.labels("mailbox", carrier.version).observe(now - arrived)
        session = carrier.session
        cfg, track = session.cfg, session.track

        def finish(outcome: Prediction | Exception) -> None:
            if isinstance(outcome, Prediction):
                self._result(frame, arrived, now, cfg, outcome, track=track)
            else:
                self._no_result(frame, outcome)

        deadline = arrived + carrier.max_age_s if stream.mode == "live" else float("inf")
        return Job(
            frame.payload,
            None,
            frame.rotation,
            carrier.session.params,
            deadline,
            self.key,
            finish,
            carrier.limits,
        )

    def grant(self, max_fps: float | None) -> None:
        """Tell the client its fair rate."""
        self._carrier.send_all(
            self.stream.limit_rate(max_fps, "overload" if max_fps is not None else "relieved")
        )

    def _result(
        self, frame: Frame, arrived: float, taken: float, cfg: int, prediction: Prediction, *, track: bool
    ) -> None:
        carrier, stream = self._carrier, self.stream
        messages = stream.answered(frame.seq)
        boxes = prediction.boxes
        if track:
            boxes = carrier.session.tracker(stream.number).update(boxes, frame.ts)
        rows = boxes.astype("float64").round(2).tolist()
        for row, box in zip(rows, boxes.tolist(), strict=True):
            row[4] = round(box[4], 4)
            row[5:] = [int(value) for value in box[5:]]
        messages.append(
            {
                "type": "result",
                "stream": stream.number,
                "seq": frame.seq,
                "ts": frame.ts,
                "epoch": frame.epoch,
                "cfg": cfg,
                "width": prediction.width,
                "height": prediction.height,
                "boxes": rows,
                **stream.result_fields(),
                "t": {
                    "queue_ms": round((taken - arrived) * 1e3 + prediction.queue_ms, 2),
                    "infer_ms": round(prediction.inference_ms, 2),
                    "server_ms": round((time.monotonic() - arrived) * 1e3, 2),
                },
            }
        )
        carrier.send_all(messages)

    def _no_result(self, frame: Frame, error: Exception) -> None:
        stream = self.stream
        if isinstance(error, DeadlinePassed):
            messages = stream.dropped(frame.seq, DropReason.STALE)
        elif isinstance(error, ImageError):
            messages = stream.dropped(frame.seq, DropReason.DECODE_ERROR, str(error))
        elif isinstance(error, InferenceFailed):
            messages = stream.failed(frame.seq, "inference_failed", "the model failed on this frame")
        else:
            if not isinstance(error, InferenceLost | Problem):
                log.error("a frame failed", exc_info=error)
            messages = stream.failed(
                frame.seq, "inference_restarting", "the inference process was restarted; send on", 500
            )
        self._carrier.send_all(messages)
