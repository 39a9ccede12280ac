"""Runs a candidate through the other model version too, when the device has nothing else to do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from inference.ipc.client import ServedModel
from streamer.imaging.limits import Limits
from streamer.sampling.candidate import Rival
from streamer.sampling.sampler import Shot, lowered
from streamer.scheduling.job import Job
from streamer.scheduling.prediction import Prediction

#: What the dispatcher and the planner take all compared frames for: one stream, which no client can have.
COMPARED_STREAM = (1 << 32) - 1
#: A comparison that has not started by then is not worth it.
PATIENCE_S = 0.5


class Idler(Protocol):
    """The part of the dispatcher that this uses."""

    def rival(self, version: str) -> ServedModel | None:
        """Return another version with the same classes; None when there is none."""

    def run_if_idle(self, version: str, job: Job) -> bool:
        """Start a frame if nothing runs and nothing waits."""


class Comparison:
    """``start`` is what taps are given."""

    def __init__(self, dispatcher: Idler, limits: Limits) -> None:
        self._dispatcher = dispatcher
        self._limits = limits

    def start(self, version: str, shot: Shot, done: Callable[[Rival | None], None]) -> bool:
        """Begin to compare a frame of ``version``; ``done`` is called later. False when it cannot be."""
        rival = self._dispatcher.rival(version)
        if rival is None:
            return False
        info = rival.info

        def finish(outcome: Prediction | Exception) -> None:
            if isinstance(outcome, Prediction):
                done(Rival(rival.version, info.name, info.sha256, outcome.boxes))
            else:
                done(None)

        job = Job(
            shot.data,
            shot.rotation,
            lowered(shot.params),
            time.monotonic() + PATIENCE_S,
            COMPARED_STREAM,
            finish,
            self._limits,
        )
        return self._dispatcher.run_if_idle(rival.version, job)
