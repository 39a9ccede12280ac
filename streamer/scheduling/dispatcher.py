"""The dispatcher decides whose frame is decoded next and submits it to the inference process.

Frames wait encoded in their streams' mailboxes; POSTs wait in a bounded queue. When the device has room, a
decoder process decodes the next frame straight into a ring slot, and the dispatcher submits the slot. So
pixels exist only for frames that are about to run, and a newer frame can replace an older one until the last
moment.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from dataclasses import dataclass

from inference.core.detection_params import DetectionParams
from inference.core.detections import Boxes
from inference.core.errors import InferenceLost, RingFull
from inference.ipc.client import InferenceClient, Ticket
from inference.ipc.served_model import ServedModel
from inference.ipc.wire import Result, Status
from inference.models.model import ModelInfo
from inference.telemetry.metric_value import Histogram
from streamer.accounting.metrics import WorkerMetrics
from streamer.decoding.annotator import annotate
from streamer.decoding.decode_job import DecoderLost, Outcome, Work
from streamer.decoding.decoder_pool import DecoderPool
from streamer.decoding.messages import Answer, Task
from streamer.imaging.image_header import ImageError, ImageErrorCode
from streamer.imaging.limits import Limits
from streamer.scheduling.admission import Admission
from streamer.scheduling.client import NOBODY, Caller, Client
from streamer.scheduling.converter_threads import ConverterThreads
from streamer.scheduling.decode_cost import Kind
from streamer.scheduling.decode_room import DecodeRoom
from streamer.scheduling.errors import (
    DeadlineExceeded,
    OverLimit,
    SchedulingError,
    Unavailable,
    UnknownVersion,
)
from streamer.scheduling.job import Job, outcome_of
from streamer.scheduling.prediction import Prediction
from streamer.scheduling.suspects import REFUSE_S, Suspects, Verdict
from streamer.scheduling.version_queue import FAIR_RATE_S, Source, VersionQueue

log = logging.getLogger("streamer.dispatch")

#: How often a POST, or a frame in mode all, is tried in total if the inference process is lost with it.
MAX_ATTEMPTS = 2


@dataclass(frozen=True, slots=True)
class _StageTimes:
    """Histograms of one version. They are kept because looking up labels costs more than observing."""

    post_queue_s: Histogram
    decode_s: Histogram
    queue_s: Histogram
    inference_s: Histogram
    postprocess_s: Histogram

    @classmethod
    def of(cls, metrics: WorkerMetrics, version: str) -> _StageTimes:
        """Return the histograms of ``version``."""
        stages = ("post_queue", "decode", "queue", "inference", "postprocess")
        return cls(*(metrics.stage_s.labels(stage, version) for stage in stages))


class Dispatcher:
    """Feeds the inference process; its callers are the POST routes and the stream sessions.

    Construct it, call ``start()`` and finally ``close()``. All methods run on the event loop.
    """

    def __init__(
        self,
        client: InferenceClient,
        metrics: WorkerMetrics,
        limits: Limits,
        *,
        decoders: DecoderPool,
        suspects: Suspects,
        admission: Admission,
        interactive_share: float,
        versions: tuple[str, ...],
    ) -> None:
        self.admission = admission
        self.clients = admission.clients
        self._client = client
        self._decoders = decoders
        self._limits = limits
        self._room = DecodeRoom(decoders.size)
        self._versions = {version: VersionQueue(self._room, interactive_share) for version in versions}
        self._stages = {version: _StageTimes.of(metrics, version) for version in versions}
        self._turns = deque(versions)
        #: Frames of each live stream that are being decoded or wait for an earlier one that is, oldest first.
        self._decoding: dict[int, deque[Job]] = {}
        #: Jobs that converter threads have finished. The threads append, the event loop removes.
        self._finished: deque[tuple[str, ServedModel, Job]] = deque()
        #: Whether the event loop has been woken to look at `_finished`.
        self._waking = False
        self._suspects = suspects
        # Video frames are decoded already. Threads can convert them, because the conversion releases the GIL.
        self._converters = ConverterThreads(len(os.sched_getaffinity(0)))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._rates_task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        #: Whether the worker is draining: new streams are refused, earlier requests are still served.
        self.draining = False

    async def start(self) -> None:
        """Start serving; the connection to the inference process may still be opening."""
        self._loop = asyncio.get_running_loop()
        self._decoders.start()
        self._client.on_ring = self._decoders.attach

    async def close(self) -> None:
        """Stop the decoders and answer everything that waits as unavailable."""
        if self._rates_task is not None:
            self._rates_task.cancel()
        for state in self._versions.values():
            for job in state.clear():
                job.finish(_unavailable("shutting down"))
        self._converters.close()
        self._decoders.close()

    @property
    def ready(self) -> bool:
        """Whether frames can run now."""
        return self._client.ready

    def served(self, version: str) -> ServedModel:
        """Return the model of a version. Raises UnknownVersion, or Unavailable while the model loads."""
        if version not in self._versions:
            known = ", ".join(self._versions) or "none"
            raise UnknownVersion(f"No model version {version!r} is served here; known: {known}.")
        model = self._client.models.get(version)
        if model is None:
            raise _unavailable("the model is being loaded and warmed up")
        return model

    def model(self, version: str) -> ModelInfo:
        """Return the model information of a version; raises the same errors as :meth:`served`."""
        return self.served(version).info

    # -- POSTs ---------------------------------------------------------------------------------------

    def check_post(
        self, version: str, caller: Caller, *, left_s: float, nbytes: int | None, kind: Kind | None = None
    ) -> None:
        """Raise the error with which an image would be refused if it arrived now: OverLimit or Saturated.

        ``left_s`` is the time until its deadline. ``nbytes`` is its announced size, if any; the caller gives
        it before the image has arrived and its ``kind`` is known.
        """
        model, state = self.served(version), self._versions[version]
        state.expect(model)
        if kind is not None:
            decode_ms = state.expected_ms(kind, caller.client)
        else:
            decode_ms = state.expected_decode_ms(caller.client, nbytes, None)
        self.admission.check_post(state, caller, left_s=left_s, decode_ms=decode_ms)

    async def predict(
        self,
        version: str,
        data: bytes,
        params: DetectionParams,
        deadline: float,
        caller: Caller,
        kind: Kind | None = None,
    ) -> Prediction:
        """Detect on one image; return boxes in pixels of the upright original.

        ``deadline`` is in monotonic seconds. ``kind`` is the kind of the image, if already known. The caller
        has called :meth:`check_post` before. Raises SchedulingError, or ImageError if the data is no image,
        is too large by its header, or is damaged.
        """
        self.served(version)
        state = self._versions[version]
        with self.admission.accounted(version):
            self.admission.check_room(state)
            answered: asyncio.Future[Prediction] = asyncio.get_running_loop().create_future()

            def finish(outcome: Prediction | Exception) -> None:
                if answered.done():
                    return
                if isinstance(outcome, Exception):
                    answered.set_exception(outcome)
                else:
                    answered.set_result(outcome)

            def may_wait() -> bool:
                # While the inference process restarts the image may wait. An image that was lost with the
                # process has had its turn and may wait as well.
                return caller.patient or job.attempts > 0 or not self._client.ready

            job = Job(data, 0, params, deadline, 0, finish, self._limits)
            job.client, job.connection, job.kind = caller.client, caller.connection, kind
            now = time.monotonic()
            self._check_harm(job, now)
            state.add(job, now)
            self._pump(version)
            try:
                return await self.admission.answer(state, job, answered, patient=may_wait)
            except (DeadlineExceeded, asyncio.CancelledError):
                self._cancel(version, job)
                raise

    async def annotate(
        self, data: bytes, rows: Boxes, labels: tuple[str, ...], size: tuple[int, int]
    ) -> bytes:
        """Return the image with its boxes drawn, as JPEG; ``size`` is its upright width and height in pixels.

        Raises ImageError, or Unavailable if decoders were lost while they processed it.
        """
        try:
            return await annotate(self._decoders, data, self._limits, rows, labels, size)
        except DecoderLost as error:
            raise _unavailable(str(error)) from error

    def _cancel(self, version: str, job: Job) -> None:
        """Withdraw a job whose caller has gone, at whatever stage it is; a run in progress is not
        interrupted.
        """
        job.cancelled = True
        if not self._versions[version].withdraw(job) and job.ticket is not None:
            self._client.cancel(job.ticket)

    # -- streams -------------------------------------------------------------------------------------

    def admit(self, version: str, client: Client = NOBODY) -> None:
        """Check that one more stream of ``client`` would get a useful frame rate.

        Raises Saturated if it would not, OverLimit if the client's own streams are the reason, and
        UnknownVersion or Unavailable if there is no model.
        """
        model = self.served(version)
        if self.draining:
            raise _unavailable("this server is shutting down")
        self.admission.check_stream(self._versions[version], model, client)

    def open(self, version: str, source: Source) -> None:
        """Register a stream until :meth:`close_source` is called."""
        self._versions[version].open(source)
        if self._loop is not None and (self._rates_task is None or self._rates_task.done()):
            self._rates_task = self._loop.create_task(self._share_rates(), name="fair-rates")

    def close_source(self, version: str, key: int) -> None:
        """Forget a stream; its frames that run still finish."""
        self._versions[version].close(key)

    def offer(self, version: str, source: Source) -> None:
        """Note that a stream has a new frame in its mailbox, and start what can start."""
        self._versions[version].offer(source)
        self._pump(version)

    def charge(self, version: str, client: Client, cpu_s: float) -> None:
        """Charge a client for the processor seconds that the decoder of its video has used."""
        self._versions[version].charge(client, cpu_s)

    def pump_all(self) -> None:
        """Start all frames that can start; also called when the inference process has become ready."""
        self._turns.rotate()  # rotate, so that no version always goes first
        for version in tuple(self._turns):
            self._pump(version)

    # -- shadow runs -----------------------------------------------------------------------------------

    def other_version(self, version: str) -> ServedModel | None:
        """Return another loaded version with the same classes; None if there is none."""
        models = self._client.models
        own = models.get(version)
        labels = None if own is None else own.info.labels
        return next((m for name, m in models.items() if name != version and m.info.labels == labels), None)

    def run_if_idle(self, version: str, job: Job) -> bool:
        """Start a frame that no client waits for, if nothing runs and nothing waits; else return False."""
        model = self._client.models.get(version)
        if model is None or not self._client.ready or self.draining:
            return False
        if not all(state.idle for state in self._versions.values()):
            return False
        return self._begin(version, self._versions[version], model, job)

    # -- processing of a frame -------------------------------------------------------------------------

    def _pump(self, version: str) -> None:
        """Start frames while the device has room for them."""
        model = self._client.models.get(version)
        if model is None or not self._client.ready:
            return
        state = self._versions[version]
        while (job := state.next(model.in_flight, now := time.monotonic())) is not None:
            if not job.stream:
                self._stages[version].post_queue_s.observe(now - job.queued_at)
            if not self._begin(version, state, model, job):
                return
        if state.held_by_rates:
            self._look_again()

    def _look_again(self) -> None:
        """Schedule another look: a rate-limited stream becomes ready by time alone, without an event."""
        if self._timer is not None or self._loop is None:
            return

        def again() -> None:
            self._timer = None
            self.pump_all()

        self._timer = self._loop.call_later(0.02, again)

    def _begin(self, version: str, state: VersionQueue, model: ServedModel, job: Job) -> bool:
        """Acquire a ring slot and start decoding into it. Return False if there is no free slot after all."""
        now = time.monotonic()
        if job.deadline < now:
            state.skip(job)
            job.finish(DeadlineExceeded())
            return True
        try:
            self._check_harm(job, now)
        except (SchedulingError, ImageError) as refusal:
            state.skip(job)
            job.finish(refusal)
            return True
        try:
            ticket = self._client.acquire(lambda answer: self._answered(version, model, job, answer))
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

    def _check_harm(self, job: Job, now: float) -> None:
        """Raise ImageError or OverLimit for a frame that may not run, and note whether it must run alone."""
        verdict = self._suspects.judge(job.data, job.stream, now, job.client.number)
        if verdict is Verdict.REFUSED and job.stream == 0:
            raise OverLimit(
                "Images of this client have ended the inference process again and again; try later.",
                retry_after_s=int(REFUSE_S),
            )
        if verdict in (Verdict.BLOCKED, Verdict.REFUSED):
            raise _poison()
        job.alone = verdict is Verdict.ALONE

    def _decode(
        self, version: str, model: ServedModel, job: Job, data: bytes | memoryview, ticket: Ticket
    ) -> None:
        """Let a decoder process write the image into the slot."""

        def decoded(outcome: Outcome) -> None:
            if isinstance(outcome, Answer):
                job.letterbox = model.letterbox(outcome.width, outcome.height)
                job.damaged = outcome.damaged
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
        # One wake-up serves all jobs that finish before it is handled: each wake-up costs a system call and
        # the GIL.
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
        """Submit a decoded frame. Frames of one stream are submitted in order, whichever decoder is first."""
        job.decoded = True
        self._versions[version].decoded(job, time.monotonic())
        if not job.stream:
            self._submit(version, model, job)
        else:
            queue = self._decoding[job.stream]
            while queue and queue[0].decoded:
                self._submit(version, model, queue.popleft())
            if not queue:
                self._decoding.pop(job.stream, None)
        if self._room.held:
            self._room.held = False
            self.pump_all()

    def _submit(self, version: str, model: ServedModel, job: Job) -> None:
        ticket = job.ticket
        if ticket is None:  # cannot happen: a job is decoded into its ticket's slot
            return
        if job.fault is not None or job.cancelled:
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
        if isinstance(answer, InferenceLost):
            self._lost(version, job, answer)
        else:
            self._end(version, job, answer.inference_ms / max(1, answer.batch_size) / 1e3)
            if answer.status is Status.OK:
                self._observe(version, model, job, answer)
            if job.alone:
                self._suspects.survived(job.data)
            job.finish(outcome_of(job, answer))
        self._pump(version)

    def _lost(self, version: str, job: Job, error: InferenceLost | DecoderLost) -> None:
        """Try a lost job once more if somebody waits for it: a POST, or a frame in mode all.

        A lost live frame is not retried, because newer frames follow it. A frame during which the process has
        died twice is not run again.
        """
        state, now = self._versions[version], time.monotonic()
        executing = isinstance(error, InferenceLost) and error.executing
        harmful = executing and self._suspects.died(
            job.data, job.stream, now, alone=job.alone, client=job.client.number
        )
        again = not harmful and job.awaited and job.attempts < MAX_ATTEMPTS and not job.cancelled
        if again:
            job.decoded, job.fault = False, None
        if isinstance(error, InferenceLost):
            state.lost(job, now, again=again)
        else:
            state.end(job, 0.0, now, again=again)
        if harmful:
            log.error("a frame ended the inference process twice; it is blocked")
            job.finish(_poison())
        elif job.stream == 0 and not again:
            job.finish(_unavailable("processes that held this image were lost twice"))
        elif not again:
            job.finish(error)

    def _end(self, version: str, job: Job, inference_s: float = 0.0) -> None:
        self._versions[version].end(job, inference_s, time.monotonic())

    def _observe(self, version: str, model: ServedModel, job: Job, result: Result) -> None:
        self._versions[version].observe(model, job.stream, result)
        stages = self._stages[version]
        stages.queue_s.observe(result.queue_ms / 1e3)
        stages.inference_s.observe(result.inference_ms / 1e3)
        stages.postprocess_s.observe(result.postprocess_ms / 1e3)

    async def _share_rates(self) -> None:
        """Grant rates while there are streams, so that a worker without streams is not woken."""
        while any(state.streams for state in self._versions.values()):
            await asyncio.sleep(FAIR_RATE_S)
            for version, state in self._versions.items():
                model = self._client.models.get(version)
                if model is not None:
                    state.share(model, time.monotonic())


def _poison() -> ImageError:
    return ImageError(
        ImageErrorCode.DAMAGED,
        "the inference process ended twice while it ran this image; it is not run again",
    )


def _unavailable(why: str) -> Unavailable:
    return Unavailable(f"Not available at the moment: {why}.", retry_after_s=2)
