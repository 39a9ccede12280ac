"""The dispatcher: one step before the inference process, decides whose frame is decoded next.

Frames wait encoded, in their streams' mailboxes; POSTs wait in a bounded queue. As the device has room,
the next one is decoded in a thread straight into a ring slot and submitted. So pixels exist only for
frames that are about to run, and a newer frame can replace an older one until the last moment.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client import Histogram

from inference import DetectionParams, InferenceFailed, InferenceLost, ModelInfo, RingFull
from inference.client import InferenceClient, ServedModel, Ticket
from inference.letterbox import Letterbox
from inference.stride import Stride
from inference.wire import Result, Status
from streamer.fair_rate import FairRates, water_level
from streamer.frame_counters import FrameCounters
from streamer.image_header import ImageHeader
from streamer.limits import Limits
from streamer.media import decode
from streamer.metrics import WorkerMetrics
from streamer.prediction import Prediction
from streamer.problems import Problem
from streamer.protocol import DropReason
from streamer.stream import Ledger

log = logging.getLogger("streamer.dispatch")

#: A POST that was lost with the inference process is tried this often in all.
MAX_ATTEMPTS = 2
#: POSTs may exceed the in-flight bound by this much while live frames fill it.
RESERVED_FOR_POSTS = 1
#: How the ledger calls an image that was answered with this status instead of boxes.
_DROP_OF_STATUS = {503: DropReason.OVERLOAD, 504: DropReason.STALE}
#: Period of the fair-rate update.
FAIR_RATE_S = 0.5


class DeadlinePassed(Exception):
    """The frame was too old when its turn came."""


@dataclass(slots=True, eq=False)
class Job:
    """One frame on its way; made when it is taken, forgotten when it is finished."""

    data: bytes | memoryview
    header: ImageHeader | None
    rotation: int
    params: DetectionParams
    #: Latest start of execution, monotonic seconds.
    deadline: float
    #: 0 for POSTs.
    stream: int
    finish: Callable[[Prediction | Exception], None]
    limits: Limits
    attempts: int = 0
    #: None until a slot was acquired.
    ticket: Ticket | None = None
    #: None until the frame was decoded.
    letterbox: Letterbox | None = None
    decode_ms: float = 0.0
    #: Whether its decoder thread is done with it, well or not.
    decoded: bool = False
    #: Why there are no pixels; None while there is no fault.
    fault: Exception | None = None
    cancelled: bool = False


class Source(Protocol):
    """A live stream, as the dispatcher sees it."""

    key: int
    declared_fps: float | None

    @property
    def pending(self) -> bool:
        """Whether a frame waits, startable or not."""

    def wants_turn(self, now: float) -> bool:
        """Whether a frame waits that may start now."""

    def take(self, now: float) -> Job | None:
        """Take that frame; None when all that waited was too old."""

    def grant(self, max_fps: float | None) -> None:
        """Tell the client its fair rate."""


@dataclass(slots=True)
class _Demand:
    """What a stream has asked for lately."""

    arrived: int = 0
    fps: float = 0.0
    #: Its frames wait for the device, so it would take more than it sends.
    hungry: bool = False


@dataclass(slots=True)
class _Version:
    """Queues of one model version."""

    posts: deque[Job] = field(default_factory=deque)
    #: Live streams with something to say, by key.
    waiting: dict[int, Source] = field(default_factory=dict)
    sources: dict[int, Source] = field(default_factory=dict)
    demands: dict[int, _Demand] = field(default_factory=dict)
    #: Key to the turn it was last served in.
    served: dict[int, int] = field(default_factory=dict)
    turn: int = 0
    in_flight: int = 0
    #: Frames of each live stream that are in decoder threads, or wait for one that is, oldest first.
    decoding: dict[int, deque[Job]] = field(default_factory=dict)
    #: Frames per second that the device does, by its latest runs; smoothed. 0 until it has run.
    observed_fps: float = 0.0
    classes: Stride[str] = field(default_factory=lambda: Stride({"post": 0.25, "live": 0.75}))
    rates: FairRates[int] = field(default_factory=FairRates)

    def observe(self, model: ServedModel, result: Result) -> None:
        """Learn from one answer how many frames per second the device does."""
        fps = model.parallel * result.batch_size / max(result.inference_ms, 1e-3) * 1e3
        self.observed_fps += (fps - self.observed_fps) * (0.05 if self.observed_fps else 1.0)

    def capacity_fps(self, model: ServedModel) -> float:
        """Return what may be promised: a warm-up beside a busy neighbour must not throttle for good.

        The larger of both: promised too much, mailboxes drop the surplus; promised too little, the
        device idles.
        """
        return max(model.capacity_fps, self.observed_fps)


@dataclass(frozen=True, slots=True)
class _StageTimes:
    """Histograms of one version; kept, because looking labels up costs more than observing."""

    decode_s: Histogram
    queue_s: Histogram
    inference_s: Histogram
    postprocess_s: Histogram

    @classmethod
    def of(cls, metrics: WorkerMetrics, version: str) -> _StageTimes:
        """Return the histograms of ``version``."""
        stages = ("decode", "queue", "inference", "postprocess")
        return cls(*(metrics.stage_s.labels(stage, version) for stage in stages))


class Dispatcher:
    """Feeds the inference link; its callers are the POST routes and the stream sessions.

    Construct, ``start()``, ``close()``. All methods belong to the event loop.
    """

    def __init__(
        self,
        client: InferenceClient,
        metrics: WorkerMetrics,
        limits: Limits,
        *,
        queue_max: int,
        min_fps: float,
        versions: tuple[str, ...],
    ) -> None:
        self._client = client
        self._limits = limits
        self._queue_max = queue_max
        self._min_fps = min_fps
        self._versions = {version: _Version() for version in versions}
        #: Every posted image has one outcome too.
        self._post_ledgers = {version: Ledger() for version in versions}
        self._post_counters = {version: FrameCounters(metrics, "http", version) for version in versions}
        self._stages = {version: _StageTimes.of(metrics, version) for version in versions}
        # Decoding releases the GIL; more threads than cores only add waiting.
        self._pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="decode")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._rates_task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        #: Set while draining: new work is refused.
        self.draining = False

    async def start(self) -> None:
        """Begin to serve; the link may still be connecting."""
        self._loop = asyncio.get_running_loop()
        self._rates_task = self._loop.create_task(self._share_rates(), name="fair-rates")

    async def close(self) -> None:
        """Stop the decoder threads; whatever waits is answered as unavailable."""
        if self._rates_task is not None:
            self._rates_task.cancel()
        for state in self._versions.values():
            while state.posts:
                state.posts.popleft().finish(_unavailable("shutting down"))
        self._pool.shutdown(wait=True, cancel_futures=True)

    @property
    def ready(self) -> bool:
        """Whether frames can run now."""
        return self._client.ready

    def served(self, version: str) -> ServedModel:
        """Return the model of a version. Raises Problem 404 when there is none, 503 while it loads."""
        if version not in self._versions:
            known = ", ".join(self._versions) or "none"
            raise Problem.not_found(f"No model version {version!r} is served here; known: {known}.")
        model = self._client.models.get(version)
        if model is None:
            raise _unavailable("the model is being loaded and warmed up")
        return model

    def model(self, version: str) -> ModelInfo:
        """Return what is known of a version's model; raises as :meth:`served`."""
        return self.served(version).info

    # -- POSTs ---------------------------------------------------------------------------------------

    async def predict(
        self, version: str, data: bytes, params: DetectionParams, deadline: float
    ) -> Prediction:
        """Detect on one image; returns boxes in pixels of the upright original.

        ``deadline`` is in monotonic seconds. Raises Problem (503 saturated or unavailable, 504 too late)
        or ImageError when it is no image, too large by its header, or damaged.
        """
        self.served(version)
        ledger, counters = self._post_ledgers[version], self._post_counters[version]
        ledger.received += 1
        counters.account(ledger)
        try:
            header = self._limits.read_header(data)
            prediction = await self._predict(version, data, header, params, deadline)
        except Problem as problem:
            # Refused or too late: the image was never run. Everything else failed on its own account.
            ledger.dropped[_DROP_OF_STATUS.get(problem.status, DropReason.OVERLOAD)] += 1
            raise
        except BaseException:
            ledger.failed += 1
            raise
        else:
            ledger.inferred += 1
            return prediction
        finally:
            counters.account(ledger)

    async def _predict(
        self, version: str, data: bytes, header: ImageHeader, params: DetectionParams, deadline: float
    ) -> Prediction:
        """Queue one image and wait for its answer."""
        state = self._versions[version]
        if self.draining:
            raise _unavailable("this server is shutting down")
        if len(state.posts) >= self._queue_max:
            raise Problem.unavailable(
                f"{len(state.posts)} images wait already; try again later.", retry_after_s=1
            )
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Prediction] = loop.create_future()

        def finish(outcome: Prediction | Exception) -> None:
            if future.done():
                return
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        job = Job(data, header, 0, params, deadline, 0, finish, self._limits)
        state.posts.append(job)
        self._pump(version)
        try:
            async with asyncio.timeout_at(deadline - time.monotonic() + loop.time()):
                return await future
        except TimeoutError:
            self._cancel(version, job)
            raise Problem.deadline_exceeded("The deadline of this request has passed.") from None
        except DeadlinePassed:
            raise Problem.deadline_exceeded("The deadline of this request has passed.") from None
        except asyncio.CancelledError:
            self._cancel(version, job)
            raise

    def _cancel(self, version: str, job: Job) -> None:
        """The caller is gone: withdraw its frame wherever it is; a run in progress is not interrupted."""
        job.cancelled = True
        state = self._versions[version]
        if job in state.posts:
            state.posts.remove(job)
        elif job.ticket is not None:
            self._client.cancel(job.ticket)

    # -- streams -------------------------------------------------------------------------------------

    def admit(self, version: str) -> None:
        """Check that one more stream would get a useful share. Raises Problem 503 when it would not."""
        model = self.served(version)
        if self.draining:
            raise _unavailable("this server is shutting down")
        if not self._min_fps:
            return
        state = self._versions[version]
        wanted = [self._wanted_fps(state, key) for key in state.sources]
        share = water_level([*wanted, float("inf")], state.capacity_fps(model))
        if share < self._min_fps:
            raise Problem.unavailable(
                f"One more stream would get {share:.1f} frames per second; "
                f"the least allowed is {self._min_fps:g}.",
                retry_after_s=5,
            )

    def open(self, version: str, source: Source) -> None:
        """Register a stream; :meth:`close_source` forgets it."""
        state = self._versions[version]
        state.sources[source.key] = source
        state.demands[source.key] = _Demand()

    def close_source(self, version: str, key: int) -> None:
        """Forget a stream; frames of it that run still finish."""
        state = self._versions[version]
        for table in (state.sources, state.demands, state.waiting, state.served):
            table.pop(key, None)

    def offer(self, version: str, source: Source) -> None:
        """A stream has a new frame in its mailbox."""
        state = self._versions[version]
        demand = state.demands.get(source.key)
        if demand is not None:
            demand.arrived += 1
        state.waiting[source.key] = source
        self._pump(version)

    def pump_all(self) -> None:
        """Start whatever can start; called when the inference process has become ready."""
        for version in self._versions:
            self._pump(version)

    # -- the way of a frame --------------------------------------------------------------------------

    def _pump(self, version: str) -> None:
        """Start frames while the device has room for them."""
        model = self._client.models.get(version)
        if model is None or not self._client.ready:
            return
        state = self._versions[version]
        while True:
            for_posts = state.in_flight < model.in_flight + RESERVED_FOR_POSTS
            for_live = state.in_flight < model.in_flight
            now = time.monotonic()
            ready = (
                [s for s in state.waiting.values() if s.wants_turn(now)] if for_live and state.waiting else []
            )
            classes = (["post"] if state.posts and for_posts else []) + (["live"] if ready else [])
            if not classes:
                self._look_again(state)
                return
            choice = state.classes.pick(classes)
            if choice == "post":
                job: Job | None = state.posts.popleft()
            else:
                source = min(ready, key=lambda s: state.served.get(s.key, 0))
                job = source.take(now)
                if job is not None:  # a stream whose frames were all too old keeps its turn
                    state.turn += 1
                    state.served[source.key] = state.turn
                if not source.pending:
                    state.waiting.pop(source.key, None)
            if job is None:
                continue
            state.classes.charge(choice, 1.0)
            if not self._begin(version, state, model, job):
                return

    def _look_again(self, state: _Version) -> None:
        """A rate-limited stream becomes ready by time alone: come back for it."""
        if not state.waiting or self._timer is not None or self._loop is None or state.in_flight:
            return

        def again() -> None:
            self._timer = None
            self.pump_all()

        self._timer = self._loop.call_later(0.02, again)

    def _begin(self, version: str, state: _Version, model: ServedModel, job: Job) -> bool:
        """Acquire a slot and decode into it in a thread. False when there is no slot after all."""
        now = time.monotonic()
        if job.deadline < now:
            job.finish(DeadlinePassed())
            return True
        try:
            ticket = self._client.acquire(lambda answer: self._answered(version, model, job, answer))
        except RingFull:
            # In-flight bounds of all versions together fit the ring, so this is a bug; do not lose the frame.
            log.error("no free ring slot although the in-flight bound allows one")  # noqa: TRY400 - no traceback needed
            job.finish(InferenceLost("no free slot"))
            return False
        job.ticket = ticket
        job.attempts += 1
        state.in_flight += 1
        if job.stream:
            state.decoding.setdefault(job.stream, deque()).append(job)
        self._pool.submit(self._decode, version, model, job, ticket)
        return True

    def _decode(self, version: str, model: ServedModel, job: Job, ticket: Ticket) -> None:
        """Decode and letterbox into the slot. Runs in a decoder thread."""
        loop = self._loop
        if loop is None:
            return
        begun = time.perf_counter()
        try:
            info = model.info
            header = job.header or job.limits.read_header(job.data)
            image = decode(
                job.data, header, rotation=job.rotation, target=(info.input_width, info.input_height)
            )
            width, height = header.upright_size
            if job.rotation % 2:
                width, height = height, width
            job.letterbox = Letterbox.fit(width, height, info)
            job.letterbox.write(image, self._client.pixels(ticket, info))
        except Exception as caught:  # noqa: BLE001 - handed to the loop, which tells faults of input from ours
            job.fault = caught
        job.decode_ms = (time.perf_counter() - begun) * 1e3
        try:
            loop.call_soon_threadsafe(self._decoded, version, model, job)
        except RuntimeError:  # the loop has closed: nobody waits any more
            return

    def _decoded(self, version: str, model: ServedModel, job: Job) -> None:
        """Hand a decoded frame on. Frames of a stream leave in order, whichever thread was quicker."""
        job.decoded = True
        if not job.stream:
            self._submit(version, model, job)
            return
        decoding = self._versions[version].decoding
        queue = decoding[job.stream]
        while queue and queue[0].decoded:
            self._submit(version, model, queue.popleft())
        if not queue:
            decoding.pop(job.stream, None)

    def _submit(self, version: str, model: ServedModel, job: Job) -> None:
        ticket = job.ticket
        if ticket is None:  # never: a job is decoded into its ticket's slot
            return
        if job.fault is not None or job.cancelled:
            self._client.release(ticket)
            self._end(version)
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
        )

    def _answered(self, version: str, model: ServedModel, job: Job, answer: Result | InferenceLost) -> None:
        self._end(version)
        if isinstance(answer, InferenceLost):
            self._lost(version, job, answer)
        else:
            if answer.status is Status.OK:
                self._observe(version, model, job, answer)
            job.finish(_outcome(job, answer))
        self._pump(version)

    def _lost(self, version: str, job: Job, error: InferenceLost) -> None:
        """POSTs are idempotent and somebody waits: try again. Live frames have newer ones behind them."""
        if job.stream == 0 and job.attempts < MAX_ATTEMPTS and not job.cancelled:
            self._versions[version].posts.appendleft(job)
        elif job.stream == 0:
            job.finish(_unavailable("the inference process was lost twice while it held this image"))
        else:
            job.finish(error)

    def _end(self, version: str) -> None:
        self._versions[version].in_flight -= 1

    def _observe(self, version: str, model: ServedModel, job: Job, result: Result) -> None:
        self._versions[version].observe(model, result)
        stages = self._stages[version]
        stages.queue_s.observe(result.queue_ms / 1e3)
        stages.inference_s.observe(result.inference_ms / 1e3)
        stages.postprocess_s.observe(result.postprocess_ms / 1e3)
        demand = self._versions[version].demands.get(job.stream)
        if demand is not None:
            demand.hungry = result.queue_ms > max(5.0, result.inference_ms / 2)

    # -- fair rates ----------------------------------------------------------------------------------

    def _wanted_fps(self, state: _Version, key: int) -> float:
        """What a stream would take: its measured rate, or all it may declare when its frames wait."""
        demand = state.demands[key]
        if not demand.hungry:
            return demand.fps
        return max(demand.fps, state.sources[key].declared_fps or float("inf"))

    async def _share_rates(self) -> None:
        while True:
            await asyncio.sleep(FAIR_RATE_S)
            now = time.monotonic()
            for version, state in self._versions.items():
                model = self._client.models.get(version)
                if model is None:
                    continue
                for demand in state.demands.values():
                    # Half a second of arrivals, smoothed over about a second.
                    demand.fps += 0.5 * (demand.arrived / FAIR_RATE_S - demand.fps)
                    demand.arrived = 0
                capacity_fps = state.capacity_fps(model)
                overloaded = sum(demand.fps for demand in state.demands.values()) > capacity_fps
                wanted = {
                    key: demand.fps if not overloaded else self._wanted_fps(state, key)
                    for key, demand in state.demands.items()
                }
                for key, fps in state.rates.update(wanted, capacity_fps, now).items():
                    state.sources[key].grant(None if fps is None else max(1.0, round(fps, 1)))


def _outcome(job: Job, result: Result) -> Prediction | Exception:
    """Turn an answer into what the frame's owner gets."""
    if result.status is Status.OK and job.letterbox is not None:
        letterbox = job.letterbox
        return Prediction(
            width=letterbox.source_width,
            height=letterbox.source_height,
            boxes=letterbox.to_source(result.boxes),
            decode_ms=job.decode_ms,
            queue_ms=result.queue_ms,
            inference_ms=result.inference_ms,
            postprocess_ms=result.postprocess_ms,
            batch_size=result.batch_size,
        )
    if result.status is Status.EXPIRED:
        return DeadlinePassed()
    if result.status is Status.CANCELLED:
        return InferenceLost("cancelled")
    return InferenceFailed(result.detail)


def _unavailable(why: str) -> Problem:
    return Problem.unavailable(f"Not available at the moment: {why}.", retry_after_s=2)
