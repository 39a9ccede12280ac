"""Counts what one version of a worker has run, what its clients asked for, and what was refused. Pure.

`VersionQueue` owns the counters; `replica_load` reads them once a second and publishes the demand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from streamer.scheduling.clients import Client

#: Time after which a refused client is told to come back, in seconds. A refused stream is worth one refusal
#: in this time.
RETURN_S = 5.0
#: Time constant of the rates of POSTs and refusals: three times `RETURN_S`, so that the refusals of a client
#: that returns as it was told look like a constant rate.
_RATE_S = 15.0
#: Number of clients that are counted apart. Those beyond it are counted together, as one client.
MAX_CLIENTS = 512
#: A rate per second below this counts as none.
_NO_RATE = 0.005


@dataclass(slots=True)
class _Rate:
    """Measures events per second: an average that decays with `_RATE_S`."""

    count: int = 0
    per_s: float = 0.0

    def update(self, passed_s: float) -> None:
        self.per_s += (self.count / passed_s - self.per_s) * -math.expm1(-passed_s / _RATE_S)
        self.count = 0


class _ClientRates:
    """Holds the rates of one client."""

    __slots__ = ("client", "posts", "refused_posts", "refused_streams")

    def __init__(self, client: Client) -> None:
        self.client = client
        self.posts, self.refused_posts, self.refused_streams = _Rate(), _Rate(), _Rate()

    def update(self, passed_s: float) -> bool:
        """Update all rates; return False if nothing has happened for a while."""
        rates = (self.posts, self.refused_posts, self.refused_streams)
        for rate in rates:
            rate.update(passed_s)
        return any(rate.per_s >= _NO_RATE for rate in rates)


class LoadCounters:
    """Counts the frames and the refusals of one version, and derives the rates that clients ask for.

    ``workers`` is the number of workers among which the connections of a client are distributed. Times are
    monotonic seconds.
    """

    def __init__(self, workers: int = 1) -> None:
        #: Frames with a result so far, and the processor seconds of decoding them.
        self.frames = 0
        self.decode_s = 0.0
        self.workers = workers
        self._clients: dict[int, _ClientRates] = {}
        self._others = _ClientRates(Client(""))
        self._full_s = 0.0
        #: Since when frames wait because the device has no room; None while none does.
        self._full_since: float | None = None

    # -- what runs -----------------------------------------------------------------------------------

    def ran(self, decode_ms: float) -> None:
        """Count a frame that got its result, and the processor time of its decoding."""
        self.frames += 1
        self.decode_s += decode_ms / 1e3

    def note_full(self, now: float, *, full: bool) -> None:
        """Note whether frames wait because as many are in flight as the device needs."""
        if not full:
            if self._full_since is not None:
                self._full_s += now - self._full_since
                self._full_since = None
        elif self._full_since is None:
            self._full_since = now

    def take_full_s(self, now: float) -> float:
        """Return for how many seconds frames have waited for room since the last call."""
        full_s, self._full_s = self._full_s, 0.0
        if self._full_since is not None:
            full_s += now - self._full_since
            self._full_since = now
        return full_s

    # -- what is asked -------------------------------------------------------------------------------

    def post_queued(self, client: Client) -> None:
        """Count a posted image that was admitted."""
        self._rates_of(client).posts.count += 1

    def post_refused(self, client: Client) -> None:
        """Count a posted image that was refused for lack of capacity."""
        self._rates_of(client).refused_posts.count += 1

    def stream_refused(self, client: Client) -> None:
        """Count a stream that was refused for lack of capacity."""
        self._rates_of(client).refused_streams.count += 1

    def _rates_of(self, client: Client) -> _ClientRates:
        rates = self._clients.get(client.number)
        if rates is None:
            if len(self._clients) >= MAX_CLIENTS:
                return self._others
            rates = self._clients[client.number] = _ClientRates(client)
        return rates

    def update(self, passed_s: float) -> None:
        """Update all rates with what was counted in the last ``passed_s`` seconds."""
        self._others.update(passed_s)
        for number in [key for key, rates in self._clients.items() if not rates.update(passed_s)]:
            del self._clients[number]

    @property
    def posts_fps(self) -> float:
        """Admitted images per second."""
        return sum(rates.posts.per_s for rates in self._all())

    @property
    def refused_posts_fps(self) -> float:
        """Estimate of the images per second that refused POSTs would add.

        An impatient client repeats a refused image at once, so its refusals do not tell how many images it
        has. It counts with at most as many as it has had admitted, or with one in `RETURN_S` if those are
        fewer.
        """
        least = 1.0 / RETURN_S / self.workers
        return sum(min(rates.refused_posts.per_s, max(rates.posts.per_s, least)) for rates in self._all())

    @property
    def refused_streams(self) -> float:
        """Estimate of the number of streams that were refused and try again.

        A client that returns after `RETURN_S` counts with one stream for each that it tries to open. An
        impatient client counts with at most as many as it has open in this worker, or with one if it has
        none; its attempts reach all workers, so each counts its part of that one.
        """
        least = 1.0 / self.workers
        return sum(
            min(RETURN_S * rates.refused_streams.per_s, max(float(rates.client.streams), least))
            for rates in self._all()
        )

    def _all(self) -> list[_ClientRates]:
        return [*self._clients.values(), self._others]
