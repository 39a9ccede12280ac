"""Runs frames that no client waits for, one at a time, while the worker has nothing else to do.

The run of such a frame is charged to no client and counts in no client's ledger. It ends as soon as another
frame starts in this worker; the inference process ends it if a frame of another worker arrives.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping

from inference.core.errors import InferenceFailed, InferenceLost, InferenceUnavailable, RingFull
from inference.ipc.engine_connection import Ticket
from inference.ipc.engine_set import EngineSet
from inference.ipc.served_model import ServedModel
from inference.ipc.wire import Result, Status
from streamer.core import clock
from streamer.decoding.decode_job import Outcome, Work
from streamer.decoding.decoder_pool import DecoderPool
from streamer.decoding.messages import Answer, Task
from streamer.scheduling.crash_suspects import Suspects, Verdict
from streamer.scheduling.job import Job, Prediction, outcome_of
from streamer.scheduling.version_queue import VersionQueue

#: Stream number of all these frames for the planner. No client's stream can have it.
STREAM = (1 << 32) - 1
#: Time without such runs after the inference process has died during one, in seconds. The frame may not have
#: been the cause, but a model that ends the process must not do so to clients again and again.
PAUSE_S = 60.0
#: A frame is decoded only while this many decoders are idle: one for it, and one for the next image.
IDLE_DECODERS = 2


class Interrupted(Exception):
    """The run was ended, or prevented, because clients need the device."""


class IdleRuns:
    """Runs one job at a time through any loaded version. All methods run on the event loop."""

    def __init__(
        self,
        client: EngineSet,
        decoders: DecoderPool,
        suspects: Suspects,
        queues: Collection[VersionQueue],
    ) -> None:
        self._client = client
        self._decoders = decoders
        self._suspects = suspects
        self._queues = queues
        #: The job in progress; None if there is none.
        self._job: Job | None = None
        #: Number of frames of clients that have begun.
        self._begun = 0
        #: No job starts before this time, in monotonic seconds.
        self._not_before = 0.0

    @property
    def models(self) -> Mapping[str, ServedModel]:
        """Loaded models by version."""
        return self._client.models

    @property
    def running(self) -> bool:
        """Whether a job is in progress."""
        return self._job is not None

    @property
    def mark(self) -> int | None:
        """Number of frames of clients that have begun so far; None while one is in work or waits.

        If two marks are equal, no frame was in work in between.
        """
        return self._begun if all(queue.idle for queue in self._queues) else None

    def start(self, version: str, job: Job) -> bool:
        """Start a job if nothing runs and nothing waits in this worker; return whether it was started.

        If it was started, ``job.finish`` is called once, later: with a Prediction, with Interrupted, or with
        the error. A job that was interrupted may be started again.
        """
        model = self._client.models.get(version)
        if self._job is not None or model is None or not self._client.ready:
            return False
        now = clock.monotonic()
        if now < self._not_before or self.mark is None:
            return False
        encoded = isinstance(job.data, bytes | memoryview)
        if encoded and self._decoders.idle < IDLE_DECODERS:
            return False
        try:
            ticket = self._client.acquire(lambda answer: self._answered(model, job, answer))
        except (RingFull, InferenceUnavailable):
            return False
        ticket.shadow = True
        job.cancelled, job.fault, job.letterbox, job.stream = False, None, None, STREAM
        loop = asyncio.get_running_loop()
        if self._suspects.check(job.data, STREAM, now) is not Verdict.FREE:
            # Only for a client that waits for its boxes is such a frame worth the risk.
            job.fault = InferenceFailed("this frame may have ended the inference process")
            loop.call_soon(self._decoded, model, job)
        elif not encoded:
            converted = loop.run_in_executor(None, self._convert, model, job, ticket)
            converted.add_done_callback(lambda _: self._decoded(model, job))
        elif not self._decode(model, job, ticket):
            self._client.release(ticket)
            return False
        self._job, job.ticket = job, ticket
        return True

    def frame_begins(self) -> None:
        """Note that a frame of a client begins, and end the job in progress."""
        self._begun += 1
        job = self._job
        if job is None or job.cancelled:
            return
        job.cancelled = True
        if job.decoded and job.ticket is not None:
            self._client.cancel(job.ticket)

    def _decode(self, model: ServedModel, job: Job, ticket: Ticket) -> bool:
        """Let a decoder process write the image into the slot; return False if none can."""
        if not isinstance(job.data, bytes | memoryview) or self._decoders.any_ring is not ticket.ring:
            return False

        def decoded(outcome: Outcome) -> None:
            if isinstance(outcome, Answer):
                job.letterbox = model.letterbox(outcome.width, outcome.height)
                job.damaged, job.reduced, job.decode_ms = outcome.damaged, outcome.reduced, outcome.decode_ms
            else:
                job.fault = outcome
            self._decoded(model, job)

        work = Work(job.data, Task.LETTERBOX, job.rotation, ticket.slot, model.info, job.limits, decoded)
        return self._decoders.submit_optional(work)

    def _convert(self, model: ServedModel, job: Job, ticket: Ticket) -> None:
        """Letterbox a video frame into the slot. Runs in a thread."""
        if job.cancelled or isinstance(job.data, bytes | memoryview):
            return
        begun = time.perf_counter()
        try:
            image = job.data.pixels()
            letterbox = model.letterbox(image.shape[1], image.shape[0])
            letterbox.write(image, self._client.pixels(ticket, model.info))
        except Exception as caught:  # noqa: BLE001 - handed to the loop, which answers for it
            job.fault = caught
            return
        job.letterbox, job.decode_ms = letterbox, (time.perf_counter() - begun) * 1e3

    def _decoded(self, model: ServedModel, job: Job) -> None:
        ticket = job.ticket
        if ticket is None:  # cannot happen: a job is decoded into its ticket's slot
            return
        if job.fault is not None or job.cancelled:
            self._client.release(ticket)
            self._finish(job, Interrupted() if job.cancelled else job.fault or Interrupted())
            return
        job.decoded = True
        self._client.submit(
            ticket, model, job.params, stream=STREAM, interactive=False, deadline=job.deadline
        )

    def _answered(self, model: ServedModel, job: Job, answer: Result | InferenceLost) -> None:
        if isinstance(answer, InferenceLost):
            if answer.executing:
                now = clock.monotonic()
                self._not_before = now + PAUSE_S
                self._suspects.died(job.data, STREAM, now, alone=False)
            self._finish(job, answer)
        elif answer.status is Status.CANCELLED:
            self._finish(job, Interrupted())
        else:
            self._finish(job, outcome_of(job, answer, model.info))

    def _finish(self, job: Job, outcome: Prediction | Exception) -> None:
        # The ticket refers to the job. Without this cycle, both are freed at once.
        self._job, job.ticket, job.decoded = None, None, False
        job.finish(outcome)
