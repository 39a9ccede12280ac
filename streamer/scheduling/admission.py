"""Admits or refuses requests and streams by quota, share and waiting time, and accounts posted images."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from types import TracebackType
from typing import Literal

from inference.ipc.served_model import ServedModel
from streamer.accounting.ledger import FrameCounters, Ledger
from streamer.accounting.metrics import WorkerMetrics
from streamer.core import clock
from streamer.core.timeout_queue import TimeoutQueue
from streamer.protocol.wire import DropReason
from streamer.scheduling.clients import NOBODY, Caller, Client, Clients
from streamer.scheduling.errors import DeadlineExceeded, OverLimit, Saturated, SchedulingError
from streamer.scheduling.job import Job, Prediction
from streamer.scheduling.version_queue import VersionQueue

#: Drop reasons of images that never ran. Any other error means that the image failed.
_DROP_REASONS = {
    OverLimit: DropReason.RATE,
    Saturated: DropReason.OVERLOAD,
    DeadlineExceeded: DropReason.STALE,
}


class PostAccount:
    """Accounts the posted images of one version: as received on entry, and with their outcome on exit.

    The context manager holds no state of an image, so one instance serves all concurrent images.
    """

    def __init__(self, ledger: Ledger, counters: FrameCounters) -> None:
        self._ledger = ledger
        self._counters = counters

    def __enter__(self) -> None:
        self._ledger.received += 1
        self._counters.account(self._ledger)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._ledger.inferred += 1
        else:
            self._account_error(error)
        self._counters.account(self._ledger)

    def refused(self, error: SchedulingError) -> None:
        """Account an image that was refused before it was read."""
        self._ledger.received += 1
        self._account_error(error)
        self._counters.account(self._ledger)

    def _account_error(self, error: BaseException) -> None:
        """Account an image that got an error instead of boxes."""
        reason = _DROP_REASONS.get(type(error))
        if reason is None:
            self._ledger.failed += 1
        else:
            self._ledger.dropped[reason] += 1


#: Upper bound of the retry time in a refusal, in seconds.
_MAX_RETRY_S = 30
_STREAM_RETRY_S = 5
#: Kinds of connections that a client can open; each kind has its own rate limit.
Opening = Literal["streams", "sessions"]


class Admission:
    """Decides whether requests and streams are admitted.

    ``queue_max`` limits the number of waiting POSTs, and so their memory; ``queue_s`` limits how long they
    wait. A stream is refused if it would get less than ``min_fps``. OverLimit means that the client itself
    has reached its quota, or its share while other clients are served. Saturated means that the server is
    full.
    """

    def __init__(
        self,
        metrics: WorkerMetrics,
        versions: tuple[str, ...],
        clients: Clients,
        *,
        queue_max: int,
        queue_s: float,
        min_fps: float,
    ) -> None:
        self.clients = clients
        self._queue_max = queue_max
        self._queue_s = queue_s
        self._min_fps = min_fps
        self._refused = metrics.refused
        #: Queues of the versions that have received a POST.
        self._queues: set[VersionQueue] = set()
        self._metrics = metrics
        self._ledgers: dict[str, Ledger] = {}
        self._accounts: dict[str, PostAccount] = {}
        for version in versions:
            self.add_version(version)
        self._timeouts = TimeoutQueue(clock.monotonic)

    def add_version(self, version: str) -> None:
        """Account the posted images of a version."""
        ledger = self._ledgers[version] = Ledger()
        self._accounts[version] = PostAccount(ledger, FrameCounters(self._metrics, "http", version))

    def accounted(self, version: str) -> PostAccount:
        """Return the context manager that accounts one posted image of a version."""
        return self._accounts[version]

    def count_refused(self, version: str, error: SchedulingError) -> None:
        """Account a request that was refused before its body was read; it counts as one image."""
        self._accounts[version].refused(error)

    # -- quotas --------------------------------------------------------------------------------------

    def charge_request(self, client: Client, nbytes: int | None) -> None:
        """Charge the client's quotas for one POST. Raises OverLimit.

        ``nbytes`` is the size of its body, None if it is not known yet.
        """
        requests, rate = client.requests, client.image_bytes
        if requests is None and rate is None:
            return
        now = clock.monotonic()
        if requests is not None and not requests.take(now):
            raise self._over_quota("post", f"{requests.per_s:g} requests", requests.retry_after_s(now))
        # If the length is unknown, take 1, so that a bucket in debt still refuses the request.
        if rate is not None and not rate.take(now, max(1, nbytes or 0)):
            retry_s = rate.retry_after_s(now, max(1, nbytes or 0))
            raise self._over_quota("post", f"{rate.per_s:g} bytes of images", retry_s)

    def open_stream(self, client: Client) -> None:
        """Count one more WebSocket connection. Raises OverLimit.

        The caller must call :meth:`close_stream` when the connection ends.
        """
        most = client.most_streams
        if most is not None and client.streams >= most:
            self._refused.labels("live", "quota").inc()
            raise OverLimit(
                f"This client has {client.streams} streams open; its quota is {most}.", _STREAM_RETRY_S
            )
        self.charge_opening(client, "streams")
        client.streams += 1

    @staticmethod
    def close_stream(client: Client) -> None:
        """Stop counting a connection that has ended."""
        client.streams -= 1

    def charge_opening(self, client: Client, kind: Opening) -> None:
        """Count a new connection or session. Raises OverLimit if the client opens them too fast."""
        now, openings = clock.monotonic(), client.openings.get(kind)
        if openings is not None and not openings.take(now):
            raise self._over_quota("live", f"{openings.per_s:g} new {kind}", openings.retry_after_s(now))

    def _over_quota(self, name: str, what: str, retry_s: int) -> OverLimit:
        self._refused.labels(name, "quota").inc()
        return OverLimit(f"This client's quota is {what} a second.", min(_MAX_RETRY_S, retry_s))

    # -- shares --------------------------------------------------------------------------------------

    def check_post(self, state: VersionQueue, caller: Caller, *, left_s: float, decode_ms: float) -> None:
        """Raise OverLimit or Saturated if an image of this caller may wait too long for its turn.

        ``left_s`` is the time until the image's deadline, ``decode_ms`` the expected time to decode it.
        """
        client = caller.client
        self.check_room(state)
        wait_s = state.expected_wait_s(client, caller.connection, clock.monotonic(), decode_ms)
        if wait_s <= self._queue_s and wait_s <= left_s:
            return
        text = f"An image could wait for {wait_s:.1f} s; allowed are {self._queue_s:g} s (REQUEST_QUEUE_S)."
        retry_s = min(_MAX_RETRY_S, max(1, math.ceil(wait_s - self._queue_s)))
        if state.is_alone(client):
            self._refused.labels("post", "saturated").inc()
            raise Saturated(text, retry_s)
        self._refused.labels("post", "share").inc()
        raise OverLimit(f"{text} This client has more images waiting than its share allows.", retry_s)

    def fullness(self) -> float:
        """Return the used share of `REQUEST_QUEUE_MAX` for the version with the fullest queue, 0 to 1."""
        return max((state.posts_waiting for state in self._queues), default=0) / self._queue_max

    def check_room(self, state: VersionQueue) -> None:
        """Raise Saturated if the queue already holds as many images as it may."""
        if state not in self._queues:
            self._queues.add(state)
        waiting = state.posts_waiting
        if waiting >= self._queue_max:
            self._refused.labels("post", "queue_full").inc()
            raise Saturated(f"{waiting} images wait already; try again later.", retry_after_s=1)

    def check_stream(self, state: VersionQueue, model: ServedModel, client: Client) -> None:
        """Raise OverLimit or Saturated if one more stream of ``client`` would get less than ``min_fps``."""
        fps = state.rates.newcomers_share_fps(model, client) if self._min_fps else math.inf
        if fps >= self._min_fps:
            return
        text = f"One more stream would get {fps:.1f} frames per second; the least is {self._min_fps:g}."
        if state.rates.newcomers_share_fps(model, NOBODY) < self._min_fps:
            self._refused.labels("live", "saturated").inc()
            raise Saturated(text, _STREAM_RETRY_S)
        self._refused.labels("live", "share").inc()
        raise OverLimit(f"{text} This client has its share in streams.", _STREAM_RETRY_S)

    async def answer(
        self,
        state: VersionQueue,
        job: Job,
        answered: asyncio.Future[Prediction],
        *,
        may_wait_long: Callable[[], bool],
    ) -> Prediction:
        """Wait for the result of a posted image that was queued.

        Raises Saturated if the image still waits for its turn after ``queue_s``, unless ``may_wait_long()``
        is true at that moment. Raises DeadlineExceeded at the deadline, whatever stage the image has reached.
        """
        timeouts, turn = self._timeouts, [0]
        if not job.attempts:  # an image with attempts is being decoded, so it has had its turn
            self._limit_wait(state, job, may_wait_long, turn)
        # The outcome is the same as for a frame that the inference process found too old.
        deadline = timeouts.schedule(job.deadline, lambda: job.finish(DeadlineExceeded()))
        try:
            return await answered
        finally:
            timeouts.cancel(turn[0])
            timeouts.cancel(deadline)

    def _limit_wait(
        self, state: VersionQueue, job: Job, may_wait_long: Callable[[], bool], turn: list[int]
    ) -> None:
        """Schedule the refusal of an image that waits too long for its turn.

        The number of the timeout is stored in ``turn``. To extend the wait, the nested function calls this
        method again. If it scheduled itself, it would be a reference cycle, which would keep the image until
        the next full garbage collection.
        """

        def end_wait() -> None:
            if may_wait_long():
                self._limit_wait(state, job, may_wait_long, turn)
                return
            if not state.give_up(job, clock.monotonic()):
                return
            self._refused.labels("post", "waited").inc()
            job.finish(
                Saturated(f"The image has waited for {self._queue_s:g} s without a turn; try again later.", 1)
            )

        turn[0] = self._timeouts.schedule(clock.monotonic() + self._queue_s, end_wait)
