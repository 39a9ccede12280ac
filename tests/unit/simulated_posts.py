"""Simulates clients that POST to the queue of one version, with decoders and inference of a fixed speed."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from inference.core.detections import NO_BOXES
from inference.ipc.served_model import ServedModel
from inference.ipc.wire import Result, Status
from streamer.scheduling.clients import Client
from streamer.scheduling.decode_limiter import DecodeLimiter
from streamer.scheduling.job import Job, Prediction
from streamer.scheduling.version_queue import VersionQueue
from tests.unit.test_version_queue import INFO, post

DECODERS, INFERENCE_THREADS, IN_FLIGHT = 2, 2, 4
RUN_S, DECODE_MS = 0.04, 4.0
QUEUE_S = 1.0
#: Seconds after which a refused client tries again.
IMPATIENCE_S = 0.2
#: One run of 40 ms in each of two inference threads: 50 images per second.
MODEL = ServedModel(
    0,
    "v1",
    INFO,
    {1: RUN_S * 1e3},
    in_flight=IN_FLIGHT,
    parallel=INFERENCE_THREADS,
    inference_threads=INFERENCE_THREADS,
)
PREDICTION = Prediction(640, 480, NO_BOXES, 0.0, 0.0, 0.0, 0.0, 1)


@dataclass(frozen=True, slots=True)
class Image:
    """Describes an image that a client posts."""

    size: tuple[int, int] = (640, 480)
    progressive: bool = False

    def job(self, client: Client, connection: int) -> Job:
        """Return the job of this image as it waits in the queue."""
        return post(client, connection=connection, size=self.size, progressive=self.progressive)


SMALL, LARGE = Image(), Image((8000, 4000), progressive=True)


@dataclass(slots=True)
class Seen:
    """Records the outcomes of a client's images; times are in seconds."""

    #: Time from arrival to answer of each image that was served.
    served_s: list[float] = field(default_factory=list)
    #: Wait of each image that got its turn.
    turn_s: list[float] = field(default_factory=list)
    refused_at_once: int = 0
    #: Wait of each image that was admitted but evicted before its turn.
    evicted_s: list[float] = field(default_factory=list)


class Simulation:
    """Simulates clients and one machine: add clients, then call :meth:`run`.

    ``slowness`` maps a time to the factor by which all work that starts then takes longer.
    """

    def __init__(self, slowness: Callable[[float], float] = lambda _now: 1.0) -> None:
        self.now = 0.0
        self.queue = VersionQueue(DecodeLimiter(DECODERS))
        self.queue.expect(MODEL)
        self.seen: dict[str, Seen] = {}
        self._slowness = slowness
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._decoding: list[Job] = []
        self._staged: list[Job] = []
        self._running = 0

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Schedule an action at a simulated time, seconds."""
        heapq.heappush(self._events, (when, next(self._numbers), action))

    def run(self, until: float) -> None:
        """Advance the simulated time to ``until``, running each action that is due."""
        while self._events and self._events[0][0] <= until:
            self.now, _, action = heapq.heappop(self._events)
            action()

    # -- clients -------------------------------------------------------------------------------------

    def poisson(self, client: Client, per_s: float, *, seed: int = 1) -> None:
        """Send images at random times with a mean rate, each over a connection of its own."""
        rng, connections = random.Random(seed), itertools.count(1)

        def send() -> None:
            self.send(client, next(connections), SMALL, lambda _: None)
            self.at(self.now + rng.expovariate(per_s), send)

        self.at(rng.expovariate(per_s), send)

    def steady(self, client: Client, per_s: float) -> None:
        """Send images at a constant rate over one connection."""

        def send() -> None:
            self.send(client, 1, SMALL, lambda _: None)
            self.at(self.now + 1 / per_s, send)

        self.at(0.5, send)

    def closed_loop(self, client: Client, connections: int, image: Image = SMALL) -> None:
        """Send the next image of a connection 1 ms after a result, or IMPATIENCE_S after a refusal."""
        for connection in range(1, connections + 1):
            self._loop(client, connection, image)

    def _loop(self, client: Client, connection: int, image: Image) -> None:
        def answered(served: object) -> None:
            self.at(self.now + (0.001 if served else IMPATIENCE_S), send)

        def send() -> None:
            self.send(client, connection, image, answered)

        self.at(connection * 1e-4, send)

    def send(self, client: Client, connection: int, image: Image, answered: Callable[[object], None]) -> None:
        """POST one image now, as the routes do; call ``answered`` with a true value if it was served."""
        seen, queue = self.seen.setdefault(client.name, Seen()), self.queue
        job, arrived = image.job(client, connection), self.now
        data = bytes(job.data) if isinstance(job.data, bytes | memoryview) else b""
        decode_ms = queue.expected_decode_ms(client, len(data), data)
        if queue.expected_wait_s(client, connection, self.now, decode_ms) > QUEUE_S:
            seen.refused_at_once += 1
            answered(False)
            return

        def finish(outcome: object) -> None:
            seen.served_s.append(self.now - arrived)
            answered(outcome)

        def evict() -> None:
            if queue.give_up(job, self.now):
                seen.evicted_s.append(self.now - arrived)
                answered(False)

        job.finish = finish
        queue.add(job, self.now)
        self.at(self.now + QUEUE_S, evict)
        self._pump()

    # -- the machine ---------------------------------------------------------------------------------

    def _pump(self) -> None:
        while (job := self.queue.next(IN_FLIGHT, self.now)) is not None:
            self.queue.begin(job, self.now)
            self.seen[job.client.name].turn_s.append(self.now - job.queued_at)
            self._decoding.append(job)
            self._decode()

    def _decode(self) -> None:
        for job in self._decoding[:DECODERS]:
            if job.decode_ms == 0.0:
                megapixels = job.kind.megapixels if job.kind else 0.0
                job.decode_ms = DECODE_MS + (20.0 * megapixels if megapixels > 1 else 0.0)
                took_s = job.decode_ms / 1e3 * self._slowness(self.now)
                self.at(self.now + took_s, partial(self._decoded, job))

    def _decoded(self, job: Job) -> None:
        self._decoding.remove(job)
        job.decode_cpu_ms = job.decode_ms
        self.queue.decoded(job, self.now)
        self._staged.append(job)
        self._decode()
        self._run()
        self._pump()

    def _run(self) -> None:
        while self._staged and self._running < INFERENCE_THREADS:
            self._running += 1
            run_s = RUN_S * self._slowness(self.now)
            self.at(self.now + run_s, partial(self._ended, self._staged.pop(0), run_s))

    def _ended(self, job: Job, run_s: float) -> None:
        self._running -= 1
        result = Result(1, Status.OK, NO_BOXES, 0.0, run_s * 1e3, 0.1, 1)
        self.queue.end(job, run_s, self.now)
        self.queue.observe(MODEL, job.stream, result)
        job.finish(PREDICTION)
        self._run()
        self._pump()
