"""Runs a job that the dispatcher has chosen: decodes it into a ring slot, submits it, reports its outcome.

A job is a frame of a stream or a posted image. Whatever happens to the processes that hold it, it is finished
exactly once, with boxes or with an error, perhaps after a second attempt. `crash_suspects` decides which
frames may not run again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from inference.core.errors import InferenceLost, RingFull
from inference.core.metric_value import Histogram
from inference.ipc.engine_connection import Ticket
from inference.ipc.engine_set import EngineSet
from inference.ipc.served_model import ServedModel
from inference.ipc.wire import Result, Status
from streamer.accounting.metrics import WorkerMetrics
from streamer.core import clock
from streamer.decoding.decode_job import DecoderLost, Outcome, Work
from streamer.decoding.decoder_pool import DecoderPool
from streamer.decoding.messages import Answer, Task
from streamer.imaging.image_header import ImageError, ImageErrorCode
from streamer.scheduling.converter_threads import ConverterThreads
from streamer.scheduling.crash_suspects import REFUSE_S, Suspects, Verdict
from streamer.scheduling.decode_limiter import DecodeLimiter
from streamer.scheduling.errors import DeadlineExceeded, OverLimit, SchedulingError, Unavailable
from streamer.scheduling.job import Job, outcome_of
from streamer.scheduling.version_queue import VersionQueue

log = logging.getLogger("streamer.dispatch")

#: Maximum number of attempts for a POST, or a frame in mode `all`, if processes are lost while they hold it.
MAX_ATTEMPTS = 2


@dataclass(frozen=True, slots=True)
class _StageTimes:
    """Keeps the histograms of one version, because looking them up takes longer than observing a value."""

    decode_s: Histogram
    queue_s: Histogram
    inference_s: Histogram
    postprocess_s: Histogram

    @classmethod
    def of(cls, metrics: WorkerMetrics, version: str) -> _StageTimes:
        """Return the histograms of ``version``."""
        stages = ("decode", "queue", "inference", "postprocess")
        return cls(*(metrics.stage_s.labels(stage, version) for stage in stages))


class JobRunner:
    """Runs jobs; the dispatcher owns it and decides which job is next.

    All methods run on the event loop, except where they say that a converter thread runs them.
    """

    def __init__(
        self,
        client: EngineSet,
        metrics: WorkerMetrics,
        decoders: DecoderPool,
        suspects: Suspects,
        decode_limiter: DecodeLimiter,
        versions: Mapping[str, VersionQueue],
        *,
        pump: Callable[[str], None],
        pump_all: Callable[[], None],
    ) -> None:
        """Create the runner; :meth:`start` must follow.

        The runner calls ``pump`` with a version, or ``pump_all``, when waiting frames of that version, or of
        all versions, may have room to start.
        """
        self._client = client
        self._decoders = decoders
        self._suspects = suspects
        self._decode_limiter = decode_limiter
        self._versions = versions
        self._pump = pump
        self._pump_all = pump_all
        self._metrics = metrics
        self._stages = {version: _StageTimes.of(metrics, version) for version in versions}
        #: Frames of each live stream, oldest first, that are being decoded, or that are decoded but wait
        #: until an earlier frame of the stream is submitted.
        self._decoding: dict[int, deque[Job]] = {}
        #: Jobs that converter threads have finished. The threads append, the event loop removes.
        self._finished: deque[tuple[str, ServedModel, Job]] = deque()
        #: Whether the event loop has been woken to look at `_finished`.
        self._waking = False
        # Video frames arrive decoded. Threads can convert them in parallel, because the conversion releases
        # the GIL.
        self._converters = ConverterThreads(len(os.sched_getaffinity(0)))
        #: None until started.
        self._loop: asyncio.AbstractEventLoop | None = None

    def add_version(self, version: str) -> None:
        """Run frames of one more version."""
        self._stages[version] = _StageTimes.of(self._metrics, version)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Set the event loop to which converter threads report."""
        self._loop = loop

    def close(self) -> None:
        """End the converter threads."""
        self._converters.close()

    def begin(self, version: str, state: VersionQueue, model: ServedModel, job: Job) -> bool:
        """Acquire a ring slot and start decoding into it. Return False if there is no free slot after all."""
        now = clock.monotonic()
        if job.deadline < now:
            state.skip(job)
            job.finish(DeadlineExceeded())
            return True
        try:
            self.check_suspects(job, now)
        except (SchedulingError, ImageError) as refusal:
            state.skip(job)
            job.finish(refusal)
            return True
        try:
            if job.params.class_ids and job.labels != model.info.labels:
                _use_labels(job, model.info.labels)
            ticket = self._client.acquire(lambda answer: self._answered(version, model, job, answer))
        except Unavailable as refusal:
            state.skip(job)
            job.finish(refusal)
            return True
        except RingFull:
            # The in-flight bounds of all versions together fit the ring, so this is a bug. The frame still
            # gets an outcome.
            log.error("no free ring slot although the in-flight bound allows one")  # noqa: TRY400 - no traceback needed
            state.skip(job)
            job.finish(InferenceLost("no free slot"))
            return False
        job.ticket = ticket
        ticket.alone = job.alone
        job.attempts += 1
        state.begin(job, now)
        if job.stream:
            self._decoding.setdefault(job.stream, deque()).append(job)
        if isinstance(job.data, bytes | memoryview):
            self._decode(version, model, job, job.data, ticket)
        else:
            self._converters.submit(self._convert, version, model, job, ticket)
        return True

    def check_suspects(self, job: Job, now: float) -> None:
        """Raise ImageError or OverLimit for a frame that may not run, and note whether it must run alone."""
        verdict = self._suspects.check(job.data, job.stream, now, job.client.number)
        if verdict is Verdict.REFUSED and job.stream == 0:
            raise OverLimit(
                "Images of this client have ended the inference process again and again; try later.",
                retry_after_s=int(REFUSE_S),
            )
        if verdict in (Verdict.BLOCKED, Verdict.REFUSED):
            raise _crash_error()
        job.alone = verdict is Verdict.ALONE

    def _decode(
        self, version: str, model: ServedModel, job: Job, data: bytes | memoryview, ticket: Ticket
    ) -> None:
        """Let a decoder process write the image into the slot."""

        def decoded(outcome: Outcome) -> None:
            if isinstance(outcome, Answer):
                job.letterbox = model.letterbox(outcome.width, outcome.height)
                job.damaged, job.reduced = outcome.damaged, outcome.reduced
                job.decode_ms, job.decode_cpu_ms = outcome.decode_ms, outcome.cpu_ms
            else:
                job.fault = outcome
            self._decoded(version, model, job)

        work = Work(data, Task.LETTERBOX, job.rotation, ticket.slot, model.info, job.limits, decoded)
        self._decoders.submit(ticket.ring, work)

    def _convert(self, version: str, model: ServedModel, job: Job, ticket: Ticket) -> None:
        """Letterbox a video frame into the slot. Runs in a converter thread."""
        loop = self._loop
        if loop is None or isinstance(job.data, bytes | memoryview):
            return
        begun, cpu_s = time.perf_counter(), time.thread_time()
        try:
            image = job.data.pixels()
            job.letterbox = model.letterbox(image.shape[1], image.shape[0])
            job.letterbox.write(image, self._client.pixels(ticket, model.info))
        except Exception as caught:  # noqa: BLE001 - handed to the loop, which answers for it
            job.fault = caught
        job.decode_ms = (time.perf_counter() - begun) * 1e3
        job.decode_cpu_ms = (time.thread_time() - cpu_s) * 1e3
        # Wake the event loop only once for all jobs that finish before it looks at them, because each wake-up
        # costs a system call and needs the GIL.
        self._finished.append((version, model, job))
        if self._waking:
            return
        self._waking = True
        try:
            loop.call_soon_threadsafe(self._take_finished)
        except RuntimeError:  # the loop has closed, so nobody waits for the job
            return

    def _take_finished(self) -> None:
        # Clear the flag before taking jobs: a thread that still saw it set appended its job before this
        # point, so the loop below handles it.
        self._waking = False
        while self._finished:
            self._decoded(*self._finished.popleft())

    def _decoded(self, version: str, model: ServedModel, job: Job) -> None:
        """Submit a decoded frame.

        Frames of one stream are submitted in order, even if a later one is decoded first.
        """
        job.decoded = True
        self._versions[version].decoded(job, clock.monotonic())
        if not job.stream:
            self._submit(version, model, job)
        else:
            queue = self._decoding[job.stream]
            while queue and queue[0].decoded:
                self._submit(version, model, queue.popleft())
            if not queue:
                self._decoding.pop(job.stream, None)
        if self._decode_limiter.held:
            self._decode_limiter.held = False
            self._pump_all()

    def _submit(self, version: str, model: ServedModel, job: Job) -> None:
        ticket = job.ticket
        if ticket is None:  # cannot happen: a job is decoded into its ticket's slot
            return
        if job.fault is not None or job.cancelled:
            job.ticket = None
            self._client.release(ticket)
            if isinstance(job.fault, DecoderLost) and not job.cancelled:
                self._lost(version, job, job.fault)
            else:
                self._end(version, job)
                job.finish(job.fault or InferenceLost("cancelled"))
            self._pump(version)
            return
        self._stages[version].decode_s.observe(job.decode_ms / 1e3)
        self._client.submit(
            ticket,
            model,
            job.params,
            stream=job.stream,
            interactive=job.stream == 0,
            deadline=job.deadline,
            client=job.client.number,
            weight=job.client.weight,
        )

    def _answered(self, version: str, model: ServedModel, job: Job, answer: Result | InferenceLost) -> None:
        # The ticket refers to the job. With this cycle, only the garbage collector would free the two and the
        # image.
        job.ticket = None
        if isinstance(answer, InferenceLost):
            self._lost(version, job, answer)
        else:
            self._end(version, job, answer.inference_ms / max(1, answer.batch_size) / 1e3)
            if answer.status is Status.OK:
                self._observe(version, model, job, answer)
            if job.alone:
                self._suspects.survived(job.data)
            job.finish(outcome_of(job, answer, model.info))
        self._pump(version)

    def _lost(self, version: str, job: Job, error: InferenceLost | DecoderLost) -> None:
        """Try a lost job once more if a client waits for exactly this one: a POST, or a frame in mode `all`.

        A lost live frame is not retried, because newer frames follow it. A frame is not run again if the
        inference process has died twice while it executed the frame.
        """
        state, now = self._versions[version], clock.monotonic()
        executing = isinstance(error, InferenceLost) and error.executing
        decoder_crash_error = executing and self._suspects.died(
            job.data, job.stream, now, alone=job.alone, client=job.client.number
        )
        again = not decoder_crash_error and job.awaited and job.attempts < MAX_ATTEMPTS and not job.cancelled
        if again:
            job.decoded, job.fault = False, None
        if isinstance(error, InferenceLost):
            state.lost(job, now, again=again)
        else:
            state.end(job, 0.0, now, again=again)
        if decoder_crash_error:
            log.error("a frame ended the inference process twice; it is blocked")
            job.finish(_crash_error())
        elif job.stream == 0 and not again:
            job.finish(unavailable("processes that held this image were lost twice"))
        elif not again:
            job.finish(error)

    def _end(self, version: str, job: Job, inference_s: float = 0.0) -> None:
        self._versions[version].end(job, inference_s, clock.monotonic())

    def _observe(self, version: str, model: ServedModel, job: Job, result: Result) -> None:
        state = self._versions[version]
        state.observe(model, job.stream, result)
        state.load.ran(job.decode_cpu_ms)
        stages = self._stages[version]
        stages.queue_s.observe(result.queue_ms / 1e3)
        stages.inference_s.observe(result.inference_ms / 1e3)
        stages.postprocess_s.observe(result.postprocess_ms / 1e3)


def _use_labels(job: Job, labels: tuple[str, ...]) -> None:
    """Adapt the classes that were asked of a model with other labels. Raises Unavailable if it has none."""
    params, _ = job.params.for_labels(job.labels, labels)
    if not params.class_ids:
        raise unavailable(
            "the model was replaced, and the new one has none of the classes that were asked for"
        )
    job.params, job.labels = params, labels


def _crash_error() -> ImageError:
    return ImageError(
        ImageErrorCode.DAMAGED,
        "the inference process ended twice while it ran this image; it is not run again",
    )


def unavailable(why: str) -> Unavailable:
    """Return the error for work that the service cannot do now, for the reason ``why``."""
    return Unavailable(f"Not available at the moment: {why}.", retry_after_s=2)
