"""How many samples may be taken: per stream and hour, in all per hour, and per day. Pure; times are given.

Kept in memory: a restarted observer begins with full buckets, so a restart may cost one burst more.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass

#: A stream may take so many at once after a quiet time; all streams together so many.
STREAM_BURST = 3
TOTAL_BURST = 20
#: Streams whose budgets are remembered; the one unused for longest is forgotten, and has a burst again.
MAX_STREAMS = 1000
HOUR_S = 3600.0


@dataclass(slots=True)
class Bucket:
    """A token bucket: ``per_hour`` tokens flow in, at most ``burst`` stay."""

    per_hour: float
    burst: float
    tokens: float
    at: float

    def fill(self, now: float) -> float:
        """Return the tokens there are now."""
        self.tokens = min(self.burst, self.tokens + max(0.0, now - self.at) * self.per_hour / HOUR_S)
        self.at = now
        return self.tokens


class Budget:
    """``take()`` says whether one more sample is allowed, and charges it if it is."""

    def __init__(self, *, stream_per_hour: int, per_hour: int, per_day: int, day_bytes: int) -> None:
        self._stream_per_hour = stream_per_hour
        self._per_day = per_day
        self._day_bytes = day_bytes
        self._total = Bucket(per_hour, min(TOTAL_BURST, per_hour), min(TOTAL_BURST, per_hour), 0.0)
        self._streams: OrderedDict[str, Bucket] = OrderedDict()
        #: The day (UTC) that the two counts belong to.
        self._day = ""
        self._day_samples = 0
        self._day_used_bytes = 0

    def take(self, stream: str, size_bytes: int, now: float, unix_s: float) -> bool:
        """Charge one sample to all budgets, or to none. ``now`` is monotonic, ``unix_s`` gives the day."""
        day = time.strftime("%Y-%m-%d", time.gmtime(unix_s))
        if day != self._day:
            self._day, self._day_samples, self._day_used_bytes = day, 0, 0
        own = self._stream(stream, now)
        if (
            own.fill(now) < 1
            or self._total.fill(now) < 1
            or self._day_samples >= self._per_day
            or self._day_used_bytes + size_bytes > self._day_bytes
        ):
            return False
        own.tokens -= 1
        self._total.tokens -= 1
        self._day_samples += 1
        self._day_used_bytes += size_bytes
        return True

    def _stream(self, stream: str, now: float) -> Bucket:
        bucket = self._streams.get(stream)
        if bucket is None:
            burst = min(STREAM_BURST, self._stream_per_hour)
            bucket = self._streams[stream] = Bucket(self._stream_per_hour, burst, burst, now)
            if len(self._streams) > MAX_STREAMS:
                self._streams.popitem(last=False)
        self._streams.move_to_end(stream)
        return bucket
