"""How much may be decoded at a time, so that long decodes never keep short ones waiting. Pure.

All versions of a worker share it, as they share its decoders.
"""

from __future__ import annotations

from dataclasses import dataclass

#: A decode that is expected to take longer than this is long: a 1080p JPEG takes 12, a 4K one 45.
LONG_MS = 25.0
#: While a short decode was seen within this time, one decoder is kept free of long ones.
SHORT_REMEMBERED_S = 10.0
#: Work that may wait for a decoder, for each one: enough that none waits for the event loop.
STAGED_MS = 10.0
#: Memory that decodes of large pictures take at a time, unless it is a single one: two JPEGs of 12 MP, or
#: one that is larger, progressive or turned. Those of 1080p do not count.
MEMORY_BYTES = 80 << 20


@dataclass(slots=True, eq=False)
class Decode:
    """One decode, from the decision to begin it until its end."""

    expected_ms: float
    #: Most memory that it takes; 0 where that is not known.
    nbytes: int = 0
    #: Monotonic seconds; 0 before it began.
    begun: float = 0.0


class DecodeRoom:
    """Tells what may begin on ``decoders`` decoders."""

    def __init__(self, decoders: int, memory_bytes: int = MEMORY_BYTES) -> None:
        self.decoders = decoders
        self._memory_bytes = memory_bytes
        self._running: set[Decode] = set()
        self._expected_ms = 0.0
        self._nbytes = 0
        self._short_seen = float("-inf")
        #: Whether something was held back since this was last reset; whoever ends a decode looks again.
        self.held = False

    def __len__(self) -> int:
        return len(self._running)

    @property
    def open(self) -> bool:
        """Whether anything may begin: a decoder is free, or what waits for one is done in a moment."""
        if len(self._running) < self.decoders or self._expected_ms <= self.decoders * STAGED_MS:
            return True
        self.held = True
        return False

    def admits(self, expected_ms: float, nbytes: int, now: float) -> bool:
        """Whether this decode may begin."""
        if not self._running:
            return True
        # A large picture waits for other large ones, and not for a moment without any decode.
        if (self._nbytes and nbytes and self._nbytes + nbytes > self._memory_bytes) or self._keeps_out(
            expected_ms, now
        ):
            self.held = True
            return False
        return True

    def begin(self, decode: Decode, now: float) -> None:
        """Account a decode that begins; :meth:`end` follows exactly once."""
        decode.begun = now
        self._running.add(decode)
        self._expected_ms += decode.expected_ms
        self._nbytes += decode.nbytes
        if decode.expected_ms <= LONG_MS:
            self._short_seen = now

    def end(self, decode: Decode) -> None:
        """Account the end of a decode."""
        self._running.discard(decode)
        # Summed anew: differences of floats would add up to a drift.
        self._expected_ms = sum([each.expected_ms for each in self._running])
        self._nbytes -= decode.nbytes

    def long_left_s(self, now: float) -> float:
        """Return how long the decodes of long images that have begun still take, on one decoder."""
        left_ms = (
            each.expected_ms - (now - each.begun) * 1e3
            for each in self._running
            if each.expected_ms > LONG_MS
        )
        return sum(max(0.0, left) for left in left_ms) / 1e3

    def decoders_for_long(self, now: float) -> int:
        """Return how many decoders long images may use at the moment."""
        kept = self.decoders > 1 and now - self._short_seen <= SHORT_REMEMBERED_S
        return self.decoders - kept

    def _keeps_out(self, expected_ms: float, now: float) -> bool:
        """Whether this is a long decode, and the decoder that is left is kept for short ones."""
        most = self.decoders_for_long(now)
        if expected_ms <= LONG_MS or most == self.decoders:
            return False
        # One that was expected to be short and is not counts too.
        long = sum(each.expected_ms > LONG_MS or (now - each.begun) * 1e3 > LONG_MS for each in self._running)
        return long >= most
