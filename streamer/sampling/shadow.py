"""Makes shadow runs: runs the frame of a candidate through the other model version on an idle device."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from inference.ipc.served_model import ServedModel
from streamer.imaging.image_header import Limits
from streamer.sampling.candidate import ShadowResult
from streamer.sampling.sampler import Observation, with_low_threshold
from streamer.scheduling.job import Job, Prediction

#: Stream number of all shadow runs for the dispatcher and the planner. No client's stream can have it.
SHADOW_STREAM = (1 << 32) - 1
#: A shadow run that has not started within this time is dropped.
MAX_WAIT_S = 0.5


class IdleRunner(Protocol):
    """Describes the part of the dispatcher that shadow runs need."""

    def other_version(self, version: str) -> ServedModel | None:
        """Return another version with the same classes; None when there is none."""

    def run_if_idle(self, version: str, job: Job) -> bool:
        """Start a frame if nothing runs and nothing waits; return whether it was started."""


class ShadowRuns:
    """Starts shadow runs for the samplers."""

    def __init__(self, dispatcher: IdleRunner, limits: Limits) -> None:
        self._dispatcher = dispatcher
        self._limits = limits

    def start(
        self, version: str, observation: Observation, done: Callable[[ShadowResult | None], None]
    ) -> bool:
        """Start to run a frame of ``version`` through the other version; return whether the run started.

        ``done`` gets the result, or None if the run failed. It may be called at once, even if the run does
        not start.
        """
        other = self._dispatcher.other_version(version)
        if other is None:
            return False
        info = other.info

        def finish(outcome: Prediction | Exception) -> None:
            if isinstance(outcome, Prediction):
                done(ShadowResult(other.version, info.name, info.sha256, outcome.boxes))
            else:
                done(None)

        job = Job(
            observation.data,
            observation.rotation,
            with_low_threshold(observation.params),
            time.monotonic() + MAX_WAIT_S,
            SHADOW_STREAM,
            finish,
            self._limits,
        )
        return self._dispatcher.run_if_idle(other.version, job)
