"""Limits concurrent decodes, so that long ones do not delay short ones. Pure.

All model versions of a worker share it, because they share the worker's decoders.
"""

from __future__ import annotations

from dataclasses import dataclass

from streamer.imaging.pixel_limits import DECODE_BYTES

#: A decode is called long if it is expected to take more than this. A 1080p JPEG takes 12 ms, a 4K one 45 ms.
LONG_MS = 25.0
#: After a short decode has started, one decoder is kept free of long decodes for this time.
SHORT_REMEMBERED_S = 10.0
#: Milliseconds of work that may be queued per decoder. It is enough that no decoder waits for the event loop.
STAGED_MS = 10.0
#: Limit of the memory that concurrent decodes of large images may use together. A single decode may start
#: even if it is expected to use more, because the expectation is a guess from the first bytes. Small images,
#: such as a baseline JPEG of 1080p, are not counted.
MEMORY_BYTES = DECODE_BYTES


@dataclass(slots=True, eq=False)
class Decode:
    """Describes one decode, from when it is expected until its end."""

    expected_ms: float
    #: Peak memory in bytes; 0 if unknown.
    nbytes: int = 0
    #: Start in monotonic seconds; 0 before the start.
    begun: float = 0.0


class DecodeLimiter:
    """Decides which decodes may start on ``decoders`` decoders."""

    def __init__(self, decoders: int, memory_bytes: int = MEMORY_BYTES) -> None:
        self.decoders = decoders
        self._memory_bytes = memory_bytes
        self._running: set[Decode] = set()
        self._expected_ms = 0.0
        self._nbytes = 0
        self._short_seen = float("-inf")
        #: Whether a decode was held back since this was last reset. If so, `JobRunner` starts waiting frames
        #: again when a decode ends.
        self.held = False

    def __len__(self) -> int:
        return len(self._running)

    @property
    def open(self) -> bool:
        """Whether any decode may start: a decoder is free, or the queued work is short."""
        if len(self._running) < self.decoders or self._expected_ms <= self.decoders * STAGED_MS:
            return True
        self.held = True
        return False

    def admits(self, expected_ms: float, nbytes: int, now: float) -> bool:
        """Return whether this decode may begin."""
        if not self._running:
            return True
        # A large image waits while other large images use the memory. It starts in any case when nothing else
        # is being decoded.
        if (self._nbytes and nbytes and self._nbytes + nbytes > self._memory_bytes) or self._is_reserved(
            expected_ms, now
        ):
            self.held = True
            return False
        return True

    def begin(self, decode: Decode, now: float) -> None:
        """Account the start of a decode; :meth:`end` follows exactly once."""
        decode.begun = now
        self._running.add(decode)
        self._expected_ms += decode.expected_ms
        self._nbytes += decode.nbytes
        if decode.expected_ms <= LONG_MS:
            self._short_seen = now

    def end(self, decode: Decode) -> None:
        """Account the end of a decode."""
        self._running.discard(decode)
        # The sum is computed afresh, because rounding errors of repeated subtraction would accumulate.
        self._expected_ms = sum([each.expected_ms for each in self._running])
        self._nbytes -= decode.nbytes

    def long_left_s(self, now: float) -> float:
        """Return the remaining time of the long decodes that have started, as if one decoder did them all."""
        left_ms = (
            each.expected_ms - (now - each.begun) * 1e3
            for each in self._running
            if each.expected_ms > LONG_MS
        )
        return sum(max(0.0, left) for left in left_ms) / 1e3

    def decoders_for_long(self, now: float) -> int:
        """Return how many decoders long decodes may use now."""
        kept = self.decoders > 1 and now - self._short_seen <= SHORT_REMEMBERED_S
        return self.decoders - kept

    def _is_reserved(self, expected_ms: float, now: float) -> bool:
        """Return whether this decode is long and the only decoder left is reserved for short ones."""
        most = self.decoders_for_long(now)
        if expected_ms <= LONG_MS or most == self.decoders:
            return False
        # A decode that was expected to be short but takes long counts as well.
        long = sum(each.expected_ms > LONG_MS or (now - each.begun) * 1e3 > LONG_MS for each in self._running)
        return long >= most
