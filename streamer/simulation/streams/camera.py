"""Simulates cameras that obey their window with the client library's flow control, and clients that POST."""

from __future__ import annotations

import asyncio
import random
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from inference.core.detection_params import DetectionParams
from streamer.client.flow import Flow, Sent
from streamer.client.results import FrameError, Outcome, Result
from streamer.imaging.image_header import ImageError
from streamer.protocol.server_messages import ServerMessage
from streamer.protocol.wire import Codec, Frame, pack_frame
from streamer.scheduling.clients import Caller
from streamer.scheduling.errors import OverLimit, Saturated, SchedulingError
from streamer.simulation.streams.processor import Threads
from streamer.simulation.streams.scenario import Cameras
from streamer.simulation.streams.worker import VERSION, Connection, Worker

#: Order of two messages on one connection that leave at the same time.
_APART_S = 1e-9
#: Clients to which the simulated POSTs belong.
POST_CLIENTS = 4
_UP, _DOWN = 0, 1


@dataclass(slots=True)
class StreamRecord:
    """Records what became of the frames that one camera captured during the measurement."""

    fps: float
    captured: int = 0
    #: Seconds from capture to result of each frame that has one.
    ages_s: array[float] = field(default_factory=lambda: array("d"))
    #: Frames that the client did not send, by reason: ``window`` or ``rate``.
    skipped: Counter[str] = field(default_factory=Counter)
    #: Frames that the service dropped, by reason, and frames that ended with an error, by code.
    drops: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    #: Attempts to connect that were refused, and whether one was accepted.
    refusals: int = 0
    connected: bool = False
    #: Granted rate at the end of the measurement in frames per second; None if there is no limit.
    granted_fps: float | None = None
    #: How often the granted rate changed.
    grant_changes: int = 0

    @property
    def results(self) -> int:
        """Number of frames with a result."""
        return len(self.ages_s)

    @property
    def unfinished(self) -> int:
        """Number of captured frames without an outcome; 0 unless the simulation loses frames."""
        ended = self.results + self.skipped.total() + self.drops.total() + self.errors.total()
        return self.captured - ended


@dataclass(slots=True)
class PostRecord:
    """Records what became of the images that were posted during the measurement."""

    sent: int = 0
    #: Seconds from sending to answer of each image that was served.
    served_s: array[float] = field(default_factory=lambda: array("d"))
    #: Images without boxes, by the name of the error.
    refused: Counter[str] = field(default_factory=Counter)


class Link:
    """Delays the messages of one connection, keeps their order, and stalls at random times."""

    def __init__(self, loop: asyncio.AbstractEventLoop, cameras: Cameras, rng: random.Random) -> None:
        self._loop = loop
        self._cameras = cameras
        self._rng = rng
        self._last = [0.0, 0.0]
        self._stall_at = loop.time() + self._until_stall_s()

    def up(self, call: Callable[[], None]) -> None:
        """Call ``call`` when a message that the client sends now has arrived."""
        self._carry(_UP, call)

    def down(self, call: Callable[[], None]) -> None:
        """Call ``call`` when a message that the service sends now has arrived."""
        self._carry(_DOWN, call)

    def _until_stall_s(self) -> float:
        every_s = self._cameras.stall_every_s
        return self._rng.expovariate(1.0 / every_s) if every_s else float("inf")

    def _carry(self, direction: int, call: Callable[[], None]) -> None:
        cameras = self._cameras
        delay_s = cameras.latency_s
        if cameras.latency_jitter_s:
            delay_s = max(0.0, self._rng.gauss(delay_s, cameras.latency_jitter_s))
        arrival = self._loop.time() + delay_s
        while self._stall_at + cameras.stall_s <= arrival:
            self._stall_at += cameras.stall_s + self._until_stall_s()
        if self._stall_at <= arrival:
            arrival = self._stall_at + cameras.stall_s
        arrival = self._last[direction] = max(arrival, self._last[direction] + _APART_S)
        self._loop.call_at(arrival, call)


class Camera:
    """Captures frames at its rate, and offers each to a stream, as `streamer.client.DetectStream` does.

    Only frames that are captured from ``begin`` to ``end`` (virtual seconds) are recorded.
    """

    def __init__(
        self,
        worker: Worker,
        name: str,
        record: StreamRecord,
        cameras: Cameras,
        payload: bytes,
        measured: tuple[float, float],
        rng: random.Random,
        client: tuple[Threads, float] | None = None,
    ) -> None:
        """Create a camera of the client ``name``; ``client`` are its threads and its time for a frame."""
        self.record = record
        self.flow = Flow("live")
        self._loop = asyncio.get_running_loop()
        self._worker = worker
        self._name = name
        self._cameras = cameras
        self._payload = payload
        self._begin, self._end = measured
        self._rng = rng
        self._client = client
        self._link = Link(self._loop, cameras, rng)
        #: None until the service has admitted the stream.
        self.connection: Connection | None = None
        self._regular_at = 0.0

    def connect(self) -> None:
        """Connect; when the service refuses, try again after the time that it states."""
        self._link.up(self._arrive)

    def _arrive(self) -> None:
        if self._loop.time() >= self._end:
            return
        try:
            client = self._worker.admit(self._name)
        except SchedulingError as refusal:
            self.record.refusals += 1
            retry_s = refusal.retry_after_s if isinstance(refusal, OverLimit | Saturated) else 5
            self._loop.call_later(retry_s * self._rng.uniform(1.0, 1.5), self.connect)
            return
        self.connection = connection = Connection(self._worker, client, self.record.fps, self._send_down)
        self.record.connected = True
        welcome = connection.welcome
        self._link.down(lambda: self._welcomed(welcome))

    def _welcomed(self, welcome: dict[str, object]) -> None:
        now = self._loop.time()
        self.flow.welcomed(welcome, now)
        self._regular_at = now + self._rng.random() / self.record.fps
        self._schedule_capture()

    # -- frames --------------------------------------------------------------------------------------

    def _schedule_capture(self) -> None:
        jitter_s, rng = self._cameras.jitter_s, self._rng
        late_s = 0.0
        if jitter_s:
            normal = self._cameras.jitter == "normal"
            late_s = rng.gauss(0.0, jitter_s) if normal else rng.uniform(-jitter_s, jitter_s)
        self._loop.call_at(max(self._loop.time(), self._regular_at + late_s), self._capture)
        self._regular_at += 1.0 / self.record.fps

    def _capture(self) -> None:
        now = self._loop.time()
        if now >= self._end:
            return
        self._schedule_capture()
        recorded = now >= self._begin
        self.record.captured += recorded
        reason = self.flow.refusal(now)
        if reason is not None:
            self.record.skipped[reason] += recorded
            return
        frame = Sent(0, self._payload, Codec.JPEG, now, None, size=self._cameras.size)
        self.flow.sending(frame, now)
        data = pack_frame(Frame(frame.codec, frame.seq, frame.ts_us, frame.payload))
        self._on_client(
            lambda: self._link.up(lambda: self._worker.receive(lambda: self._deliver(data))), awake=True
        )

    def _on_client(self, call: Callable[[], None], *, awake: bool = False) -> None:
        """Spend half of the client's processor time for a frame, if it uses the cores of the service."""
        if self._client is None:
            call()
            return
        threads, frame_s = self._client
        threads.submit(frame_s / 2, call, awake=awake)

    def _deliver(self, data: bytes) -> None:
        if self.connection is not None:
            self.connection.receive(data)

    # -- outcomes ------------------------------------------------------------------------------------

    def _send_down(self, message: ServerMessage) -> None:
        if message["type"] == "result":
            self._link.down(lambda: self._on_client(lambda: self._received(message)))
        else:
            self._link.down(lambda: self._received(message))

    def _received(self, message: ServerMessage) -> None:
        for outcome in self.flow.received(message, self._loop.time()):
            self._record(outcome)
        now, record = self._loop.time(), self.record
        if now < self._end and record.granted_fps != self.flow.max_fps:
            record.granted_fps = self.flow.max_fps
            record.grant_changes += now >= self._begin

    def _record(self, outcome: Outcome) -> None:
        record = self.record
        if not self._begin <= outcome.captured_s < self._end:
            return
        if isinstance(outcome, Result):
            record.ages_s.append(self._loop.time() - outcome.captured_s)
        elif isinstance(outcome, FrameError):
            record.errors[outcome.code] += 1
        else:
            record.drops[getattr(outcome, "reason", "unknown")] += 1


class Posts:
    """Posts images at random times with a mean rate (Poisson), from several clients in turn."""

    def __init__(
        self,
        workers: list[Worker],
        cameras: Cameras,
        payload: bytes,
        measured: tuple[float, float],
        timeout_s: float,
        rng: random.Random,
    ) -> None:
        self.record = PostRecord()
        self._loop = asyncio.get_running_loop()
        self._workers = workers
        self._cameras = cameras
        self._payload = payload
        self._begin, self._end = measured
        self._timeout_s = timeout_s
        self._rng = rng
        self._sent = 0
        #: Requests in progress, which must be kept from garbage collection.
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Send the first image after a random time, and then one after the other."""
        self._loop.call_later(self._rng.expovariate(self._cameras.posts_per_s), self._send)

    def _send(self) -> None:
        now = self._loop.time()
        if now >= self._end:
            return
        self.start()
        worker = self._workers[self._sent % len(self._workers)]
        caller_number = self._sent % POST_CLIENTS
        self._sent += 1
        self.record.sent += now >= self._begin

        def read() -> None:
            task = self._loop.create_task(self._predict(worker, caller_number, now))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        self._loop.call_later(self._cameras.latency_s, lambda: worker.receive(read))

    async def _predict(self, worker: Worker, number: int, sent: float) -> None:
        dispatcher, record = worker.dispatcher, self.record
        client = worker.client_of(f"poster-{number}")
        try:
            caller = Caller(client, number)
            left_s, size = self._timeout_s, len(self._payload)
            try:
                dispatcher.check_post(VERSION, caller, left_s=left_s, nbytes=size)
            except SchedulingError as refusal:
                worker.admission.count_refused(VERSION, refusal)
                raise
            deadline = self._loop.time() + left_s
            await dispatcher.predict(VERSION, self._payload, DetectionParams(), deadline, caller)
        except (SchedulingError, ImageError) as error:
            record.refused[type(error).__name__] += sent >= self._begin
            return
        if sent >= self._begin:
            record.served_s.append(self._loop.time() + self._cameras.latency_s - sent)
