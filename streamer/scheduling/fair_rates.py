"""Computes max-min fair frame rates under overload, between clients by weight and then between streams. Pure.

`stream_rates` measures the demand of each stream; this module decides the rate that each is granted. It
follows Bertsekas and Gallager, "Data Networks", section 6.5.2: raise all shares together and freeze each
party once it is satisfied.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

Key = TypeVar("Key", bound=Hashable)

#: A grant is raised only when the fair share exceeds it by this factor for this long.
RAISE_FACTOR = 1.2
RAISE_AFTER_S = 3.0


def water_level(demands: list[float], capacity: float) -> float:
    """Return the largest rate that every unsatisfied party can have; infinite if all demands fit.

    ``demands`` and ``capacity`` are in frames per second; demands may be infinite.
    """
    left = capacity
    ordered = sorted(demands)
    for index, demand in enumerate(ordered):
        level = left / (len(ordered) - index)
        if demand > level:
            return level
        left -= demand
    return math.inf


class WeightedClient(Protocol):
    """Describes the properties of a client that decide its share."""

    @property
    def number(self) -> int:
        """Number that identifies the client, the same for all of its streams."""

    @property
    def weight(self) -> float:
        """Weight of the client's share relative to others."""


def client_rates(
    demands: Mapping[int, float], weights: Mapping[int, float], capacity: float
) -> dict[int, float]:
    """Return the part of ``capacity`` that each client may have; infinite if all demands fit.

    ``demands`` are in frames per second by client. If a client does not use its whole share, the others get
    the rest.
    """
    if sum(demands.values()) <= capacity:
        return dict.fromkeys(demands, math.inf)
    left, weight_left = capacity, sum(weights[client] for client in demands)
    allowed: dict[int, float] = {}
    for client in sorted(demands, key=lambda each: demands[each] / weights[each]):
        share = left * weights[client] / weight_left
        allowed[client] = share
        left -= min(demands[client], share)
        weight_left -= weights[client]
    return allowed


def stream_levels(
    demands: Mapping[Key, float], owners: Mapping[Key, WeightedClient], capacity: float
) -> dict[Key, float]:
    """Return the largest rate that each stream may have; a stream with a smaller demand is not limited."""
    streams: dict[int, list[Key]] = {}
    for key in demands:
        streams.setdefault(owners[key].number, []).append(key)
    weights = {owners[keys[0]].number: owners[keys[0]].weight for keys in streams.values()}
    wanted = {client: sum(demands[key] for key in keys) for client, keys in streams.items()}
    levels: dict[Key, float] = {}
    for client, allowed in client_rates(wanted, weights, capacity).items():
        level = water_level([demands[key] for key in streams[client]], allowed)
        levels.update(dict.fromkeys(streams[client], level))
    return levels


def share_for_one_more(
    demands: Mapping[Key, float],
    owners: Mapping[Key, WeightedClient],
    newcomer: WeightedClient,
    capacity: float,
) -> float:
    """Return the frames per second that one more stream of ``newcomer`` could have."""
    streams: dict[Key | None, float] = dict(demands.items())
    clients: dict[Key | None, WeightedClient] = dict(owners.items())
    streams[None], clients[None] = math.inf, newcomer
    return stream_levels(streams, clients, capacity)[None]


@dataclass(slots=True)
class _Grant:
    fps: float
    #: Monotonic seconds since when the share has been high enough to raise the grant; None while it is not.
    since: float | None = None


class FairRates(Generic[Key]):
    """Keeps the rate that each stream is granted.

    A grant is lowered at once but raised only after the share has stayed higher for a while.
    """

    def __init__(self) -> None:
        self._grants: dict[Key, _Grant] = {}

    def limits(self, key: Key) -> bool:
        """Return whether a stream has a limit that :meth:`update` may still lift."""
        return key in self._grants

    def rate(self, key: Key) -> float:
        """Return the frames per second that a stream is granted; infinite without a limit."""
        grant = self._grants.get(key)
        return math.inf if grant is None else grant.fps

    def update(
        self, demands: Mapping[Key, float], owners: Mapping[Key, WeightedClient], capacity: float, now: float
    ) -> dict[Key, float | None]:
        """Return the grants that changed: frames per second, or None if the limit was lifted."""
        levels = stream_levels(demands, owners, capacity)
        changed: dict[Key, float | None] = {}
        for key in [key for key in self._grants if key not in demands]:
            del self._grants[key]
        for key, demand in demands.items():
            grant, level = self._grants.get(key), levels[key]
            limited = demand > level
            if grant is None:
                if limited:
                    self._grants[key] = _Grant(level)
                    changed[key] = level
                continue
            target = level if limited else math.inf
            if target < grant.fps:
                self._grants[key] = _Grant(level)
                changed[key] = level
            elif target < grant.fps * RAISE_FACTOR:
                grant.since = None
            elif grant.since is None:
                grant.since = now
            elif now - grant.since >= RAISE_AFTER_S:
                changed[key] = self._raise(key, target)
        return changed

    def _raise(self, key: Key, target: float) -> float | None:
        if math.isinf(target):
            del self._grants[key]
            return None
        self._grants[key] = _Grant(target)
        return target
