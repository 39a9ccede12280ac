"""Decides which frame of a model version is decoded next, and the rate at which each stream may send. Pure.

The dispatcher carries out the decisions. Clients share decoding and inference by the time that their work
takes.
"""

from __future__ import annotations

from collections import deque

from inference.core.fair_queueing import FairShare, Flow
from inference.ipc.served_model import ServedModel
from inference.ipc.wire import Result
from streamer.scheduling.clients import Client
from streamer.scheduling.decode_cost import DecodeCost, Kind, hint_of
from streamer.scheduling.decode_limiter import LONG_MS, Decode, DecodeLimiter
from streamer.scheduling.job import Job
from streamer.scheduling.load_counters import LoadCounters
from streamer.scheduling.post_queue import PostQueue
from streamer.scheduling.post_wait import PostWait
from streamer.scheduling.service_rate import ServiceRate
from streamer.scheduling.stream_rates import Demand, Source, StreamRates

#: Number of frames above the in-flight bound that absent clients may start, so that clients with work in
#: flight do not keep them out. A client is absent if it has nothing in flight and has recently used little.
#: With two versions, these frames fit the ring's spare slots.
RESERVED_FOR_ABSENT = 2
#: "Little" is at most this share of what clients with work used on average, by weight, in the last second.
_LITTLE = 0.5
#: Factor by which the peak decode time of a stream decays with each cheaper frame.
_PEAK_DECAY = 0.9
#: Assumed decode time of a stream's first frame in milliseconds if nothing is known about the client.
_FIRST_FRAME_MS = 5.0
#: Largest charge in milliseconds for a decode that was not measured; the watchdog ends longer ones.
_MOST_MS = 2000.0
#: From this size on, the cost of an image that has not arrived yet is estimated by the client's last image.
_LARGE_BYTES = 1 << 20


class VersionQueue:
    """Holds the POSTs and live streams of one version, and decides which frame is next.

    Times are monotonic seconds.
    """

    def __init__(self, decode_limiter: DecodeLimiter | None = None, interactive_share: float = 0.25) -> None:
        self._posts: PostQueue[Job] = PostQueue()
        #: Frames of streams in mode `all` that were lost with a process that held them, in order. They go
        #: first.
        self._returned: deque[Job] = deque()
        #: Live streams with a waiting frame, by key.
        self._waiting: dict[int, Source] = {}
        #: Number of frames in decoders or with the inference process.
        self._in_flight = 0
        self._decode_limiter = DecodeLimiter(1) if decode_limiter is None else decode_limiter
        self._share = FairShare({"post": interactive_share, "live": 1.0 - interactive_share})
        self._costs = DecodeCost()
        self._service = ServiceRate()
        self._wait = PostWait(self._share, self._posts, self._service, self._decode_limiter)
        #: Seconds that one inference thread takes for a frame, smoothed; 0 until something is known.
        self._inference_s = 0.0
        #: The open streams, their demands, and the rates that they are granted.
        self.rates = StreamRates()
        #: What has run, and what clients asked for.
        self.load = LoadCounters()
        self._demands = self.rates.demands
        self._turn = 0

    @property
    def idle(self) -> bool:
        """Whether nothing runs and nothing waits."""
        return not (self._in_flight or self._posts.count or self._returned or self._waiting)

    @property
    def held_by_rates(self) -> bool:
        """Whether streams wait while nothing is in flight whose end would start them; only a timer can."""
        return bool(self._waiting) and not self._in_flight

    def full(self, max_in_flight: int) -> bool:
        """Return whether frames wait because ``max_in_flight`` are in flight."""
        return self._in_flight >= max_in_flight and bool(self._waiting or self._posts.count)

    @property
    def posts_waiting(self) -> int:
        """How many posted images wait."""
        return self._posts.count

    # -- waiting frames and images ---------------------------------------------------------------------

    def open(self, source: Source) -> None:
        """Register a stream."""
        client = source.client
        flow = self._share.flow("live", client.number, client.weight)
        self.rates.open(source, Demand(flow, decode_ms=client.frame_ms or _FIRST_FRAME_MS))

    def close(self, key: int) -> None:
        """Forget a stream."""
        self.rates.close(key)
        self._waiting.pop(key, None)

    def offer(self, source: Source) -> None:
        """Note that a stream has a new frame in its mailbox."""
        if self.rates.count_arrival(source.key):
            self._waiting[source.key] = source

    def add(self, job: Job, now: float) -> None:
        """Queue a posted image."""
        client = job.client
        job.flow = self._share.flow("post", client.number, client.weight)
        job.queued_at = now
        if job.kind is None and isinstance(job.data, bytes | memoryview):
            job.kind = hint_of(job.data)
        decode_ms = client.post_ms = self.expected_ms(job.kind, client)
        job.decode = Decode(decode_ms, job.kind.peak_bytes if job.kind else 0)
        job.expected_s = decode_ms / 1e3 + self._inference_s
        self._posts.add(job.flow, job)

    def withdraw(self, job: Job) -> bool:
        """Withdraw a posted image; return False if it is not waiting."""
        return job.flow is not None and self._posts.remove(job.flow, job)

    def give_up(self, job: Job, now: float) -> bool:
        """Withdraw a posted image that has waited too long; return False if it is not waiting."""
        if not self.withdraw(job):
            return False
        self._wait.margin(0.0 if job.decode is None else job.decode.expected_ms).missed(now)
        return True

    def clear(self) -> list[Job]:
        """Remove and return all waiting jobs; the frames in the mailboxes of streams stay there."""
        jobs = [*self._returned, *self._posts.clear()]
        self._returned.clear()
        return jobs

    # -- turns ---------------------------------------------------------------------------------------

    def next(self, max_in_flight: int, now: float) -> Job | None:
        """Take the next frame while fewer than ``max_in_flight`` run; return None if none may start.

        The classes of POSTs and live streams share by weight, and so do the clients in each class. The least
        recently served stream of a client goes first.
        """
        if not (self._returned or self._waiting or self._posts.count) or not self._decode_limiter.open:
            return None
        if self._returned:  # nothing else may start, because newer frames of the same streams would overtake
            return self._next_returned(max_in_flight)
        while True:
            streams = self._ready_streams(max_in_flight, now) if self._waiting else {}
            posts = self._ready_posts(max_in_flight, now) if self._posts.count else {}
            if not streams and not posts:
                return None
            flow = self._share.pick([*posts, *streams])
            source = streams.get(flow)
            if source is None:
                self._posts.take(flow, posts[flow])
                return posts[flow]
            job = self._take_live(source, flow, now)
            if job is not None:
                return job

    def _next_returned(self, max_in_flight: int) -> Job | None:
        """Take the first frame of ``_returned`` that may start within the bounds of :meth:`next`."""
        if self._in_flight >= max_in_flight + RESERVED_FOR_ABSENT:
            return None
        full = self._in_flight >= max_in_flight
        for job in self._returned:
            if not (full and job.flow is not None and job.flow.running):
                self._returned.remove(job)
                return job
        return None

    def _ready_streams(self, max_in_flight: int, now: float) -> dict[Flow, Source]:
        """Return, for each client, the least recently served stream with a frame that may start now."""
        full = self._in_flight >= max_in_flight
        if self._in_flight >= max_in_flight + RESERVED_FOR_ABSENT:
            return {}
        ready: dict[Flow, Source] = {}
        demands = self._demands
        absent = self._absent([demands[key].flow for key in self._waiting], now) if full else None
        if full and not absent:
            return {}
        for key, source in self._waiting.items():
            demand = demands[key]
            flow = demand.flow
            if absent is not None and flow not in absent:
                continue
            best = ready.get(flow)
            if best is not None and demands[best.key].served <= demand.served:
                continue
            short = demand.decode_ms <= LONG_MS and not demand.nbytes
            if source.has_ready_frame(now) and (
                short or self._decode_limiter.admits(demand.decode_ms, demand.nbytes, now)
            ):
                ready[flow] = source
        return ready

    def _ready_posts(self, max_in_flight: int, now: float) -> dict[Flow, Job]:
        """Return, for each client, the first image that may start now."""
        if self._in_flight >= max_in_flight + RESERVED_FOR_ABSENT:
            return {}

        def fits(job: Job) -> bool:
            return job.decode is None or self._decode_limiter.admits(
                job.decode.expected_ms, job.decode.nbytes, now
            )

        absent = self._absent(self._posts.waiting_flows(), now) if self._in_flight >= max_in_flight else None
        return self._posts.ready(fits, absent)

    def _absent(self, flows: list[Flow], now: float) -> set[Flow]:
        """Return those of the clients that have nothing in flight and used little in the last second."""
        idle = {flow for flow in flows if not flow.running}
        if not idle:  # this is nearly always so, and a busy worker calls this for each frame
            return idle
        weights = sum(flow.weight for flow in {*self._share.running, *self._flows_with_work()})
        little_s = _LITTLE * self._service.total_s(now) / weights
        return {flow for flow in idle if self._service.usage_s(flow, now) <= little_s * flow.weight}

    def _take_live(self, source: Source, flow: Flow, now: float) -> Job | None:
        job = source.take(now)
        if job is not None:  # a stream whose frames were all too old keeps its turn
            self._turn += 1
            demand = self._demands[source.key]
            demand.served = self._turn
            job.flow = flow
            if isinstance(job.data, bytes | memoryview):
                kind = demand.hint.of(job.data)
                if kind is not demand.kind:
                    demand.kind, demand.nbytes = kind, kind.peak_bytes
            job.decode = Decode(demand.decode_ms, demand.nbytes)
            job.expected_s = demand.decode_ms / 1e3 + self._inference_s
        if not source.pending:
            self._waiting.pop(source.key, None)
        return job

    # -- costs ---------------------------------------------------------------------------------------

    def begin(self, job: Job, now: float) -> None:
        """Account a job whose decode starts, and charge its expected cost.

        The caller calls :meth:`end` exactly once for it.
        """
        self._in_flight += 1
        if job.flow is None:  # no client waits for this job any more
            job.flow = self._share.flow("live", job.client.number, job.client.weight)
            self._share.pick([job.flow])
        if job.decode is None:
            job.decode = Decode(_FIRST_FRAME_MS)
        self._share.start(job.flow, job.expected_s)
        self._decode_limiter.begin(job.decode, now)

    def decoded(self, job: Job, now: float) -> None:
        """Account the end of a decode, successful or not, and learn from its cost."""
        if job.decode is None:
            return
        self._decode_limiter.end(job.decode)
        if job.fault is not None:
            # The cost was not measured. The elapsed time is charged instead, because an image that is refused
            # or kills a decoder uses the decoder, too.
            job.decode_cpu_ms = min(_MOST_MS, (now - job.decode.begun) * 1e3)
        cost_ms = job.decode_cpu_ms
        self.rates.decoded(cost_ms)
        demand = self._demands.get(job.stream)
        if demand is not None:
            job.client.frame_ms = demand.decode_ms = max(cost_ms, demand.decode_ms * _PEAK_DECAY)
        elif job.kind is not None:
            job.client.learn_cost_factor(job.decode.expected_ms, cost_ms)
            self._costs.learn(job.kind, cost_ms)

    def end(self, job: Job, inference_s: float, now: float, *, again: bool = False) -> None:
        """Account the end of a job, answered or not, and charge its client the real cost.

        With ``again`` the job is queued once more: a frame before all other work, and a posted image before
        the other images of its client.
        """
        self._in_flight -= 1
        flow = job.flow
        if flow is None:  # cannot happen: the job has begun
            return
        actual_s = job.decode_cpu_ms / 1e3 + inference_s
        if again and job.stream:
            self._returned.append(job)
        self._share.settle(flow, job.expected_s, actual_s)
        if not job.stream:
            self._posts.settle(flow, job, actual_s, again=again)
            if job.decode is not None and job.attempts <= 1:  # the wait of a later try includes a restart
                self._wait.margin(job.decode.expected_ms).kept(job.decode.begun - job.queued_at)
        backlog = bool(self._posts.count or self._waiting)
        at_most = self._wait.most_per_s(job.decode_cpu_ms / 1e3, inference_s)
        self._service.ended(flow, actual_s, now, backlog=backlog, at_most=at_most)
        if not backlog and self.idle:
            self._share.rest()

    def lost(self, job: Job, now: float, *, again: bool) -> None:
        """Account a job that was lost with the inference process; ``again`` is that of :meth:`end`."""
        self.end(job, 0.0, now, again=again)
        self._service.interrupt()

    def skip(self, job: Job) -> None:
        """Account a job that :meth:`next` returned, but that will neither start nor be queued again."""
        if job.flow is not None and not job.stream:
            self._posts.settle(job.flow, job, 0.0)

    def charge(self, client: Client, cost_s: float) -> None:
        """Charge a client for processor time that its live streams used outside of their turns."""
        self._share.charge(self._share.flow("live", client.number, client.weight), cost_s)

    def observe(self, model: ServedModel, stream: int, result: Result) -> None:
        """Learn from one result how long a frame runs, and whether frames of ``stream`` have to wait."""
        item_s = result.inference_ms / max(1, result.batch_size) / 1e3
        self._inference_s += (item_s - self._inference_s) * (0.1 if self._inference_s else 1.0)
        self.rates.observe(model, stream, result)

    def expect(self, model: ServedModel) -> None:
        """Use the run time that was measured at warm-up until the run of a frame has been measured."""
        self._wait.inference_threads = model.inference_threads
        if not self._inference_s:
            self._inference_s = min(cost_ms / size for size, cost_ms in model.cost_ms.items()) / 1e3

    def expected_wait_s(self, client: Client, connection: int, now: float, decode_ms: float = 0.0) -> float:
        """Return an upper estimate of the seconds that a POST of this connection waits for its turn.

        ``decode_ms`` is the expected decode time of its image.
        """
        if decode_ms <= LONG_MS and not (self._waiting or self._posts.count):
            return 0.0  # no image waits, and only long decodes have to wait for decodes that have started
        flow = self._share.flow("post", client.number, client.weight)
        costs = decode_ms / 1e3, self._inference_s
        return self._wait.longest_s(flow, connection, costs, self._flows_with_work(), now)

    def expected_decode_ms(self, client: Client, nbytes: int | None, image: bytes | None) -> float:
        """Return the expected decode time of ``image``, which is None if it has not arrived yet.

        Such an image, if it is large or its size ``nbytes`` is unknown, is assumed to take as long as the
        client's last image. A small one is assumed to take no time.
        """
        if image is not None:
            return self.expected_ms(hint_of(image), client)
        return client.post_ms if nbytes is None or nbytes >= _LARGE_BYTES else 0.0

    def expected_ms(self, kind: Kind | None, client: Client) -> float:
        """Return the expected decode time of an image of this kind from this client."""
        return _FIRST_FRAME_MS if kind is None else self._costs.expected_ms(kind) * client.cost_factor

    def is_alone(self, client: Client) -> bool:
        """Return whether no other client has work that waits or runs for this version."""
        return all(flow.client == client.number for flow in (*self._flows_with_work(), *self._share.running))

    def _flows_with_work(self) -> list[Flow]:
        return [*self._posts.waiting_flows(), *(self._demands[key].flow for key in self._waiting)]
