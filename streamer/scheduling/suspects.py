"""Finds the frames that end the inference process, and keeps them from ending it again. Pure.

When the process dies, every frame that was executing is a suspect. A suspect is executed alone the next
time, so that a second death has one cause only: its bytes are then blocked, in all workers.
Streams are judged too, because the frames of a camera differ from each other: one whose frames have ended
the process is executed alone for a while, and refused for a while when that happens again.

Times are monotonic seconds.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

#: Suspects, and streams, that are remembered; the oldest is forgotten first.
MAX_REMEMBERED = 1000
#: How long after a death the frames of a stream are executed alone.
WATCH_S = 60.0
#: How long a stream is refused that has ended the process this often while it executed alone.
REFUSE_S = 60.0
MAX_DEATHS_ALONE = 2
#: Deaths of a stream that lie further back than this do not count.
FORGET_AFTER_S = 600.0


class Memory(Protocol):
    """Bytes that ended an inference process, remembered for all workers (`decoding.DigestMemory`)."""

    def holds(self, data: bytes | memoryview) -> bool:
        """Whether these bytes are among them."""

    def add(self, data: bytes | memoryview) -> None:
        """Remember bytes."""


class Verdict(Enum):
    """How a frame may be executed."""

    FREE = auto()
    ALONE = auto()
    BLOCKED = auto()


@dataclass(slots=True)
class _Stream:
    """What is held against a stream."""

    last_death: float
    deaths_alone: int = 0


class Suspects:
    """What one worker knows of frames and streams that were executing when an inference process died."""

    def __init__(self, blocked: Memory) -> None:
        self._blocked = blocked
        #: Length and digest of frames, the oldest first.
        self._suspected: OrderedDict[tuple[int, bytes], None] = OrderedDict()
        #: A frame of another length needs no digest.
        self._lengths: frozenset[int] = frozenset()
        self._streams: OrderedDict[int, _Stream] = OrderedDict()

    def judge(self, data: object, stream: int, now: float) -> Verdict:
        """Return how a frame may be executed. ``stream`` is 0 for POSTs, which are judged by their bytes."""
        if isinstance(data, bytes | memoryview) and self._blocked.holds(data):
            return Verdict.BLOCKED
        if not self._lengths and not self._streams:
            return Verdict.FREE
        key = self._key(data)
        of_stream = self._judge_stream(stream, now)
        if of_stream is Verdict.FREE and key is not None and key in self._suspected:
            return Verdict.ALONE
        return of_stream

    def died(self, data: object, stream: int, now: float, *, alone: bool) -> bool:
        """Note that the process died while it executed this frame; return whether it is blocked now."""
        if stream:
            known = self._streams.setdefault(stream, _Stream(now))
            known.deaths_alone += alone
            known.last_death = now
            self._streams.move_to_end(stream)
            if len(self._streams) > MAX_REMEMBERED:
                self._streams.popitem(last=False)
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
        """Note that the process executed this suspect alone and lives."""
        key = self._key(data)
        if key is not None and key in self._suspected:
            del self._suspected[key]
            self._count_lengths()

    def _judge_stream(self, stream: int, now: float) -> Verdict:
        known = self._streams.get(stream) if stream else None
        if known is None:
            return Verdict.FREE
        since_s = now - known.last_death
        if since_s > FORGET_AFTER_S:
            del self._streams[stream]
            return Verdict.FREE
        if known.deaths_alone >= MAX_DEATHS_ALONE and since_s < REFUSE_S:
            return Verdict.BLOCKED
        return Verdict.ALONE if since_s < WATCH_S or known.deaths_alone else Verdict.FREE

    def _key(self, data: object) -> tuple[int, bytes] | None:
        """Return how a frame is known; None for one that cannot be remembered here."""
        if not isinstance(data, bytes | memoryview) or len(data) not in self._lengths:
            return None
        return len(data), hashlib.blake2b(data, digest_size=16).digest()

    def _count_lengths(self) -> None:
        self._lengths = frozenset(length for length, _ in self._suspected)
