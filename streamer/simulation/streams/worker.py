"""Runs the service's own code of a worker: dispatcher, admission, flow control and ledger, in virtual time.

Only what needs other processes is replaced: decoders, inference process and sockets. What the event loop of a
worker does takes processor time, which is charged in three parts for each frame.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from streamer.access.identity import Identity
from streamer.accounting.ledger import FrameCounters
from streamer.accounting.metrics import WorkerMetrics
from streamer.decoding.decode_job import Work
from streamer.decoding.messages import Answer, Verdict
from streamer.imaging.image_header import Limits
from streamer.protocol.client_messages import Hello, StreamOffer
from streamer.protocol.server_messages import ServerMessage
from streamer.scheduling.admission import Admission
from streamer.scheduling.clients import Client, Clients
from streamer.scheduling.crash_suspects import Suspects
from streamer.scheduling.device_shares import DeviceShares
from streamer.scheduling.dispatcher import Dispatcher
from streamer.simulation.streams.inference_process import InferenceProcess, varied
from streamer.simulation.streams.processor import Processor, Threads
from streamer.simulation.streams.scenario import Machine, ServiceSettings
from streamer.streams.session import Session
from streamer.streams.session_control import SessionControl
from streamer.streams.stream_handle import StreamHandle
from streamer.websocket.frame_receiver import FrameReceiver

if TYPE_CHECKING:
    from inference.ipc.engine_set import EngineSet
    from streamer.decoding.decoder_pool import DecoderPool

VERSION = "v1"
#: Parts of the event loop's time for a frame: receiving it, submitting it after decoding, sending its result.
RECEIVING_SHARE, SUBMITTING_SHARE, SENDING_SHARE = 0.4, 0.2, 0.4


class Claims:
    """Holds what the workers want of the device, in place of the shared status."""

    def __init__(self) -> None:
        self._values: dict[tuple[int, str], float] = {}

    def post_worker(self, number: int, field: str, value: float) -> None:
        """Write one field of a worker."""
        self._values[number, field] = value

    def read_worker(self, number: int, field: str) -> float:
        """Read one field of a worker."""
        return self._values.get((number, field), 0.0)


class _NothingBlocked:
    """Blocks no bytes: no simulated frame crashes a process."""

    def contains(self, data: bytes | memoryview) -> bool:
        """Return whether these bytes are blocked."""
        return False

    def add(self, data: bytes | memoryview) -> None:
        """Never called."""


class _Decoders:
    """Stands in for `DecoderPool`: decoding takes processor time and yields no pixels."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        machine: Machine,
        cores: Processor,
        size_px: tuple[int, int],
        rng: random.Random,
        deliver: Callable[[Callable[[], None]], None],
    ) -> None:
        self.size = machine.decoders
        self.threads = Threads(cores, self.size)
        self._loop = loop
        self._machine = machine
        self._size_px = size_px
        self._rng = rng
        self._deliver = deliver

    def start(self) -> None:
        """Do nothing: there are no processes."""

    def close(self) -> None:
        """Do nothing: there are no processes."""

    def attach(self, ring: object) -> None:
        """Do nothing: there is no ring."""

    def submit(self, ring: object, work: Work) -> None:
        """Decode an image."""
        begun = self._loop.time()
        cpu_s = varied(self._machine.decode_s, self._machine.run_jitter, self._rng)

        def decoded() -> None:
            took_ms = (self._loop.time() - begun) * 1e3
            answer = Answer(Verdict.DONE, 0, *self._size_px, decode_ms=took_ms, cpu_ms=cpu_s * 1e3)
            self._deliver(lambda: work.done(answer))

        self.threads.submit(cpu_s, decoded)


class Worker:
    """Holds the dispatcher of a worker, the processes that it talks to, and its event loop's time."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        machine: Machine,
        settings: ServiceSettings,
        cores: Processor,
        inference: InferenceProcess,
        claims: Claims,
        size_px: tuple[int, int],
        rng: random.Random,
    ) -> None:
        self._loop = loop
        self._frame_s = machine.frame_s
        #: Executes what the event loop of the worker does, one call after the other.
        self.events = Threads(cores)
        self.max_age_s = settings.stream_max_age_s
        self.metrics = WorkerMetrics()
        self.limits = Limits(request_timeout_s=settings.request_timeout_s)
        self._client = inference.connect(self._deliver_result)
        self.decoders = _Decoders(loop, machine, cores, size_px, rng, self._deliver_decoded)
        self.admission = Admission(
            self.metrics,
            (VERSION,),
            Clients("simulated"),
            queue_max=settings.request_queue_max,
            queue_s=settings.request_queue_s,
            min_fps=settings.stream_min_fps,
        )
        self.dispatcher = Dispatcher(
            cast("EngineSet", self._client),
            self.metrics,
            self.limits,
            decoders=cast("DecoderPool", self.decoders),
            suspects=Suspects(_NothingBlocked()),
            admission=self.admission,
            interactive_share=settings.interactive_share,
            versions=(VERSION,),
        )
        self.dispatcher.divide_device(DeviceShares(claims, self._client.number - 1, machine.workers))

    def receive(self, call: Callable[[], None]) -> None:
        """Let the event loop read a message of a client, whose frame ``call`` takes."""
        self.events.submit(self._frame_s * RECEIVING_SHARE, call)

    def _deliver_decoded(self, call: Callable[[], None]) -> None:
        self.events.submit(self._frame_s * SUBMITTING_SHARE, call)

    def _deliver_result(self, call: Callable[[], None]) -> None:
        self.events.submit(self._frame_s * SENDING_SHARE, call)

    def client_of(self, name: str) -> Client:
        """Return the client of this name."""
        return self.dispatcher.clients.of(Identity(name, frozenset()), self._loop.time())

    def admit(self, name: str) -> Client:
        """Admit one more stream of a client, as `StreamHub` does. Raises SchedulingError."""
        client = self.client_of(name)
        self.dispatcher.admit(VERSION, client)
        self.admission.open_stream(client)
        return client


class Connection:
    """Connects one simulated camera with its stream, as `streamer.websocket.connection` does."""

    def __init__(
        self, worker: Worker, client: Client, fps: float, send: Callable[[ServerMessage], None]
    ) -> None:
        self.version = VERSION
        self.metrics = worker.metrics
        self.limits = worker.limits
        self.max_age_s = worker.max_age_s
        model = worker.dispatcher.model(VERSION)
        self.session = Session.of(VERSION, model, id="simulated")
        self.session.open_streams(Hello(type="hello", streams=[StreamOffer(id=0, fps=fps)]))
        self.counters = FrameCounters(worker.metrics, "websocket", VERSION)
        self.flow = self.session.streams[0]
        self.handle = StreamHandle(self, self.flow, None, client)
        self.streams = {0: self.handle}
        self._send = send
        self._loop = asyncio.get_running_loop()
        control = SessionControl(self, {}, self.streams)
        self._frames = FrameReceiver(self, control, worker.dispatcher)
        worker.dispatcher.open(VERSION, self.handle)

    @property
    def welcome(self) -> dict[str, Any]:
        """Fields of the ``welcome`` message that matter to flow control."""
        return {"session": "simulated", "flow": {"win": self.flow.granted, "max_fps": self.flow.max_fps}}

    def receive(self, data: bytes) -> None:
        """Take the frame of a message."""
        self._frames.receive(data, self._loop.time())

    def send_all(self, messages: list[ServerMessage]) -> None:
        """Send messages that belong to an outcome, and account it."""
        for message in messages:
            self._send(message)
        self.counters.account(self.flow.ledger)

    def send(self, message: ServerMessage) -> None:
        """Send one message."""
        self._send(message)

    def find_stream(self, number: int) -> StreamHandle:
        """Return the only stream."""
        return self.streams[number]

    def bye_received(self) -> None:
        """Do nothing: no simulated client leaves."""
