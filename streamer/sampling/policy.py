"""Holds the rules of selection, and limits how many samples are taken. Pure; the caller passes times in.

Samples that were chosen for their content, reports by people, and random samples have budgets of their own,
so that none of them takes the room of another. `random_schedule` limits the random ones.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streamer.config.settings import Settings
from streamer.core.token_bucket import TokenBucket

#: Increase this number when the meaning of a rule changes, so that samples of different rules can be
#: distinguished.
POLICY_VERSION = 4
#: Number of samples that may be taken at once after a quiet period: of one stream, and of all streams.
STREAM_BURST = 3
TOTAL_BURST = 20
#: Number of streams whose budgets are remembered. Beyond it, the least recently used one is forgotten; that
#: stream then starts with a burst again.
MAX_STREAMS = 1000
DAY_S = 86_400.0


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
    #: Bytes per day above which random samples become rarer.
    random_day_bytes: int = 1 << 30
    #: Reports by people of all streams; one stream may have a quarter of them.
    reports_per_hour: int = 120
    #: Budgets of the samples that are chosen for their content. The bytes are those of reports, too, each for
    #: itself.
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
            random_day_bytes=settings.samples_random_day_bytes,
            reports_per_hour=settings.samples_reports_per_hour,
            stream_per_hour=settings.samples_stream_per_hour,
            per_hour=settings.samples_per_hour,
            per_day=settings.samples_per_day,
            day_bytes=settings.samples_day_bytes,
        )


class _Limits:
    """Holds the limits of one kind of sample: rates per hour, and what a day has room for."""

    def __init__(self, rates: _Rates, day: _Day) -> None:
        self._rates, self._day = rates, day

    def state(self, now: float, unix_s: float) -> dict[str, Any]:
        """Return what must outlive the process, in types of msgpack, for :meth:`restore`."""
        return {"at": unix_s, "rates": self._rates.state(now), "day": self._day.state()}

    def restore(self, state: Mapping[str, Any], now: float, unix_s: float) -> None:
        """Continue from a state. Raises KeyError, TypeError or ValueError if it is none."""
        self._rates.restore(state["rates"], now, max(0.0, unix_s - float(state["at"])))
        self._day.restore(state["day"])


class Budget(_Limits):
    """Limits chosen samples: per stream and hour, per hour in total, and per day by number and bytes."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(
            _Rates(policy.stream_per_hour, STREAM_BURST, policy.per_hour, TOTAL_BURST),
            _Day(policy.per_day, policy.day_bytes),
        )

    def take(self, stream: str, size_bytes: int, now: float, unix_s: float) -> bool:
        """Charge one sample to all budgets; if one of them has no room, charge none and return False.

        ``now`` is monotonic seconds; ``unix_s`` determines the day.
        """
        if self._rates.wait_s(stream, now) or not self._day.has_room(size_bytes, unix_s):
            return False
        self._rates.charge(stream, now, 1)
        self._day.charge(size_bytes, 1)
        return True


class ReportBudget(_Limits):
    """Limits reports by people: per stream and hour, per hour in total, and the bytes per day.

    All reports of an hour may come at once. A stream has a quarter of them, so that no single client uses up
    the reports of all.
    """

    def __init__(self, policy: Policy) -> None:
        total = policy.reports_per_hour
        own = max(1, total // 4) if total else 0
        super().__init__(_Rates(own, own, total, total), _Day(None, policy.day_bytes))

    @property
    def off(self) -> bool:
        """Whether no report is ever taken."""
        return self._rates.off

    def wait_s(self, stream: str, size_bytes: int, now: float, unix_s: float) -> float:
        """Return the seconds until a report can be taken; 0 if it can be taken now."""
        if not self._day.has_room(size_bytes, unix_s):
            return DAY_S - unix_s % DAY_S
        return self._rates.wait_s(stream, now)

    def charge(self, stream: str, size_bytes: int, now: float, reports: int = 1) -> None:
        """Charge one report; with ``reports`` = -1, give back one that was charged."""
        self._rates.charge(stream, now, reports)
        self._day.charge(size_bytes * reports, reports)


class _Rates:
    """Limits a rate per stream and in total."""

    def __init__(self, own_per_hour: int, own_burst: int, per_hour: int, burst: int) -> None:
        self._own_per_hour, self._own_burst = own_per_hour, own_burst
        self._total = _bucket(per_hour, burst, 0.0)
        self._streams: OrderedDict[str, TokenBucket] = OrderedDict()

    @property
    def off(self) -> bool:
        return self._total is None or not self._own_per_hour

    def wait_s(self, stream: str, now: float) -> float:
        own = self._stream(stream, now)
        if own is None or self._total is None:
            return math.inf
        return max(own.wait_s(now), self._total.wait_s(now))

    def charge(self, stream: str, now: float, amount: int) -> None:
        own = self._stream(stream, now)
        if own is not None and self._total is not None:
            own.spend(now, amount)
            self._total.spend(now, amount)

    def state(self, now: float) -> dict[str, Any]:
        """Return the missing tokens of all buckets that are not full."""
        missing = {name: own.missing(now) for name, own in self._streams.items()}
        return {
            "total": 0.0 if self._total is None else self._total.missing(now),
            "streams": {name: tokens for name, tokens in missing.items() if tokens > 0},
        }

    def restore(self, state: Mapping[str, Any], now: float, passed_s: float) -> None:
        self._restore(self._total, state["total"], now, passed_s)
        for name, missing in state["streams"].items():
            self._restore(self._stream(str(name), now), missing, now, passed_s)

    @staticmethod
    def _restore(bucket: TokenBucket | None, missing: float, now: float, passed_s: float) -> None:
        if bucket is not None:
            bucket.spend(now, min(bucket.burst, max(0.0, float(missing) - passed_s * bucket.per_s)))

    def _stream(self, name: str, now: float) -> TokenBucket | None:
        if name not in self._streams:
            bucket = _bucket(self._own_per_hour, self._own_burst, now)
            if bucket is None:
                return None
            self._streams[name] = bucket
            if len(self._streams) > MAX_STREAMS:
                self._streams.popitem(last=False)
        self._streams.move_to_end(name)
        return self._streams[name]


class _Day:
    """Limits number and bytes of the samples of one day (UTC)."""

    def __init__(self, samples: int | None, size_bytes: int) -> None:
        self._most_samples, self._most_bytes = samples, size_bytes
        #: The day of the two counts below.
        self._day = ""
        self._samples = 0
        self._used_bytes = 0

    def has_room(self, size_bytes: int, unix_s: float) -> bool:
        day = time.strftime("%Y-%m-%d", time.gmtime(unix_s))
        if day != self._day:
            self._day, self._samples, self._used_bytes = day, 0, 0
        full = self._most_samples is not None and self._samples >= self._most_samples
        return not full and self._used_bytes + size_bytes <= self._most_bytes

    def charge(self, size_bytes: int, samples: int) -> None:
        self._samples += samples
        self._used_bytes += size_bytes

    def state(self) -> list[Any]:
        return [self._day, self._samples, self._used_bytes]

    def restore(self, state: Sequence[Any]) -> None:
        day, samples, used_bytes = state
        self._day, self._samples, self._used_bytes = str(day), int(samples), int(used_bytes)


def _bucket(per_hour: int, burst: int, now: float) -> TokenBucket | None:
    """Return a full bucket; None for a budget of 0, which never allows a sample."""
    return TokenBucket(per_hour / 3600, min(burst, per_hour), now) if per_hour else None
