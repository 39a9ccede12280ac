"""Holds the rules of selection, and limits how many samples are taken. Pure; the caller passes times in.

Budgets are kept in memory: a restarted sampling process begins with full buckets, so a restart may allow one
additional burst.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass

from streamer.config.settings import Settings
from streamer.core.token_bucket import TokenBucket

#: Increase this number when the meaning of a rule changes, so that samples of different rules can be
#: distinguished.
POLICY_VERSION = 1
#: Number of samples that may be taken at once after a quiet period: of one stream, and of all streams.
STREAM_BURST = 3
TOTAL_BURST = 20
#: Number of streams whose budgets are remembered. Beyond it, the least recently used one is forgotten; that
#: stream then starts with a burst again.
MAX_STREAMS = 1000


@dataclass(frozen=True, slots=True)
class Policy:
    """Holds the rules and budgets; times are in seconds."""

    #: Smallest uncertainty, flicker or disagreement that makes a frame worth labelling. 0 accepts all frames,
    #: a value above 1 accepts none.
    threshold: float = 0.7
    #: Least time between two samples of a stream.
    spacing_s: float = 10.0
    #: Length of an interval; only the best candidate of each interval is taken.
    interval_s: float = 60.0
    #: Mean time between two random samples of a stream; 0 disables them.
    random_every_s: float = 1800.0
    stream_per_hour: int = 20
    per_hour: int = 200
    per_day: int = 2000
    day_bytes: int = 500 << 20

    @classmethod
    def of(cls, settings: Settings) -> Policy:
        """Return the policy that the settings describe."""
        return cls(
            threshold=settings.uncertainty_threshold,
            spacing_s=settings.samples_spacing_s,
            interval_s=settings.samples_interval_s,
            random_every_s=settings.samples_random_every_s,
            stream_per_hour=settings.samples_stream_per_hour,
            per_hour=settings.samples_per_hour,
            per_day=settings.samples_per_day,
            day_bytes=settings.samples_day_bytes,
        )


class Budget:
    """Limits samples per stream and hour, per hour in total, and per day by number and bytes."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._total = _bucket(policy.per_hour, TOTAL_BURST, 0.0)
        self._streams: OrderedDict[str, TokenBucket | None] = OrderedDict()
        #: The day (UTC) of the two counts below.
        self._day = ""
        self._day_samples = 0
        self._day_used_bytes = 0

    def take(self, stream: str, size_bytes: int, now: float, unix_s: float) -> bool:
        """Charge one sample to all budgets; if one of them has no room, charge none and return False.

        ``now`` is monotonic seconds; ``unix_s`` determines the day.
        """
        day = time.strftime("%Y-%m-%d", time.gmtime(unix_s))
        if day != self._day:
            self._day, self._day_samples, self._day_used_bytes = day, 0, 0
        own, total = self._stream(stream, now), self._total
        if own is None or total is None or own.wait_s(now) or total.wait_s(now):
            return False
        if (
            self._day_samples >= self._policy.per_day
            or self._day_used_bytes + size_bytes > self._policy.day_bytes
        ):
            return False
        own.spend(now, 1)
        total.spend(now, 1)
        self._day_samples += 1
        self._day_used_bytes += size_bytes
        return True

    def _stream(self, name: str, now: float) -> TokenBucket | None:
        if name not in self._streams:
            self._streams[name] = _bucket(self._policy.stream_per_hour, STREAM_BURST, now)
            if len(self._streams) > MAX_STREAMS:
                self._streams.popitem(last=False)
        self._streams.move_to_end(name)
        return self._streams[name]


def _bucket(per_hour: int, burst: int, now: float) -> TokenBucket | None:
    """Return a full bucket; None for a budget of 0, which never allows a sample."""
    return TokenBucket(per_hour / 3600, min(burst, per_hour), now) if per_hour else None
