"""Simulates Prometheus: what it knows of each replica's load, also while it is interrupted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from streamer.simulation.autoscaling.replica import Replica

#: Each replica is scraped in every third step of the simulation, which is once in 15 seconds.
_EVERY = 3
#: Length of an interruption.
_OUTAGE_S = 600.0
#: The query for KEDA uses the last value of a replica that cannot be scraped for this long.
_REMEMBERED_S = 900.0


class Metrics:
    """Holds the load of each replica at its last scrape, in percent.

    ``outages`` are the times at which interruptions begin. By turns, Prometheus cannot scrape half of the
    replicas, and answers no query.
    """

    def __init__(self, outages: Sequence[float]) -> None:
        self._outages = outages
        self._loads: dict[int, float] = {}
        #: Times and values of the last successful scrapes.
        self._last: dict[int, tuple[float, float]] = {}
        self._down = False

    def scrape(self, now: float, step: int, replicas: Sequence[Replica]) -> None:
        """Scrape the replicas whose turn it is in this step. A failed scrape ends a series."""
        outage = next((i for i, at in enumerate(self._outages) if at <= now < at + _OUTAGE_S), None)
        self._down = outage is not None and outage % 2 == 1
        partly = outage is not None and outage % 2 == 0
        if step % _EVERY == 0:
            names = {replica.number for replica in replicas}
            self._loads = {name: load for name, load in self._loads.items() if name in names}
            self._last = {name: last for name, last in self._last.items() if name in names}
        for replica in replicas:
            if replica.number % _EVERY != step % _EVERY:
                continue
            hidden = partly and replica.number // _EVERY % 2 == 0
            if now < replica.ready_at or replica.died_at is not None or hidden:
                self._loads.pop(replica.number, None)
            else:
                self._loads[replica.number] = load = replica.load_percent(now)
                self._last[replica.number] = now, load

    def load(self, replica: Replica) -> float | None:
        """Return the load of a replica, as an HPA gets it; None if there is none."""
        return None if self._down else self._loads.get(replica.number)

    def release_loads(self, now: float, replicas: Iterable[Replica]) -> list[float]:
        """Return the loads that KEDA sums, also of replicas that cannot be scraped at the moment."""
        if self._down:
            return []
        known = [self._last[replica.number] for replica in replicas if replica.number in self._last]
        return [load for time, load in known if now - time <= _REMEMBERED_S]
