"""Finds the frames that crash the inference process and prevents them from crashing it again. Pure.

When the process dies, every frame that was executing is a suspect. A suspect is executed alone the next time,
so that a second death has exactly one cause; the bytes of that frame are then blocked in all workers. Streams
are judged too, because the frames of a camera differ from each other: a stream whose frames have crashed the
process is executed alone for a while, and refused for a while if that happens again. Clients are judged as
well, because a client can change a byte of an image or open another stream. Only deaths that no other client
can have caused count against a client.

Times are monotonic seconds.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

#: Number of suspects, and of streams and clients, that are remembered; the oldest is forgotten first.
MAX_REMEMBERED = 1000
#: How long the frames of a stream are executed alone after a first death, and after further deaths. Executing
#: alone costs throughput, and a stream whose frame was executing at only one death was most likely not its
#: cause, so the first time is short.
FIRST_WATCH_S = 3.0
WATCH_S = 60.0
#: How long a stream or client is refused, and the number of deaths, each while its frame executed alone,
#: after which it is refused.
REFUSE_S = 60.0
MAX_DEATHS_ALONE = 2
MAX_DEATHS_OF_CLIENT = 3
#: Deaths that are older than this do not count.
FORGET_AFTER_S = 600.0


class DigestSet(Protocol):
    """Remembers, for all workers, bytes that crashed the inference process (see `RefusedDigests`)."""

    def contains(self, data: bytes | memoryview) -> bool:
        """Return whether these bytes are remembered."""

    def add(self, data: bytes | memoryview) -> None:
        """Remember bytes."""


class Verdict(Enum):
    """Says how a frame may be executed."""

    FREE = auto()
    ALONE = auto()
    #: These bytes have crashed the process twice.
    BLOCKED = auto()
    #: Several frames of this stream or client have crashed the process.
    REFUSED = auto()


@dataclass(slots=True)
class _Source:
    """Counts the deaths that are held against a stream or a client."""

    last_death: float
    most_deaths_alone: int
    deaths_alone: int = 0
    deaths: int = 0


class Suspects:
    """Keeps what one worker knows about the frames, streams and clients that were executing at a death."""

    def __init__(self, blocked: DigestSet) -> None:
        self._blocked = blocked
        #: Length and digest of suspected frames, oldest first.
        self._suspected: OrderedDict[tuple[int, bytes], None] = OrderedDict()
        #: Lengths of the suspected frames: a frame of another length needs no digest.
        self._lengths: frozenset[int] = frozenset()
        #: The streams and clients, by kind ("stream" or "client") and number. Numbers of streams are valid in
        #: this worker only, numbers of clients in all workers.
        self._sources: OrderedDict[tuple[str, int], _Source] = OrderedDict()

    def check(self, data: object, stream: int, now: float, client: int = 0) -> Verdict:
        """Return how a frame may be executed. ``stream`` is 0 for POSTs, ``client`` is 0 if it is unknown."""
        if isinstance(data, bytes | memoryview) and self._blocked.contains(data):
            return Verdict.BLOCKED
        if not self._lengths and not self._sources:
            return Verdict.FREE
        verdicts = {self._check_source(("stream", stream), now), self._check_source(("client", client), now)}
        if Verdict.REFUSED in verdicts:
            return Verdict.REFUSED
        key = self._key(data)
        suspected = key is not None and key in self._suspected
        return Verdict.ALONE if suspected or Verdict.ALONE in verdicts else Verdict.FREE

    def died(self, data: object, stream: int, now: float, *, alone: bool, client: int = 0) -> bool:
        """Note that the process died while it executed this frame; return whether it is blocked now."""
        if stream:
            self._count_death(("stream", stream), now, MAX_DEATHS_ALONE, alone=alone)
        if client and alone:
            self._count_death(("client", client), now, MAX_DEATHS_OF_CLIENT, alone=True)
        if not isinstance(data, bytes | memoryview):
            return False
        key = len(data), hashlib.blake2b(data, digest_size=16).digest()
        proven = alone and key in self._suspected
        if proven:
            del self._suspected[key]
            self._blocked.add(data)
        else:
            self._suspected[key] = None
            self._suspected.move_to_end(key)
            if len(self._suspected) > MAX_REMEMBERED:
                self._suspected.popitem(last=False)
        self._count_lengths()
        return proven

    def survived(self, data: object) -> None:
        """Note that the process executed this suspect alone and survived."""
        key = self._key(data)
        if key is not None and key in self._suspected:
            del self._suspected[key]
            self._count_lengths()

    def _count_death(self, source: tuple[str, int], now: float, most: int, *, alone: bool) -> None:
        known = self._sources.setdefault(source, _Source(now, most))
        known.deaths_alone += alone
        known.deaths += 1
        known.last_death = now
        self._sources.move_to_end(source)
        if len(self._sources) > MAX_REMEMBERED:
            self._sources.popitem(last=False)

    def _check_source(self, source: tuple[str, int], now: float) -> Verdict:
        known = self._sources.get(source)
        if known is None:
            return Verdict.FREE
        since_s = now - known.last_death
        if since_s > FORGET_AFTER_S:
            del self._sources[source]
            return Verdict.FREE
        if known.deaths_alone >= known.most_deaths_alone and since_s < REFUSE_S:
            return Verdict.REFUSED
        watch_s = WATCH_S if known.deaths > 1 else FIRST_WATCH_S
        return Verdict.ALONE if since_s < watch_s or known.deaths_alone else Verdict.FREE

    def _key(self, data: object) -> tuple[int, bytes] | None:
        """Return the key of a frame; None if it cannot be a suspect."""
        if not isinstance(data, bytes | memoryview) or len(data) not in self._lengths:
            return None
        return len(data), hashlib.blake2b(data, digest_size=16).digest()

    def _count_lengths(self) -> None:
        self._lengths = frozenset(length for length, _ in self._suspected)
