"""Parses periods of time such as `7d` or `2026-11-01..2026-11-07`. Pure.

Times without an offset are local times of the process, as are the times of day that drift detection compares.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from streamer.datasets.sample import BadRequest
from streamer.drift.day import DAY_S, HOUR_S

_LENGTH = re.compile(r"(\d+(?:\.\d+)?)\s*([hdw])")
_UNITS_S = {"h": HOUR_S, "d": DAY_S, "w": 7 * DAY_S}
#: Longest period.
MAX_S = 92 * DAY_S
_ALLOWED = (
    "a length such as 24h, 7d or 2w, or two times such as 2026-11-01..2026-11-07 or "
    "2026-11-01T08:00..2026-11-02T18:00"
)


@dataclass(frozen=True, slots=True)
class Period:
    """Holds a period of time, [``begin``, ``end``), unix seconds."""

    begin: float
    end: float

    @property
    def hours(self) -> float:
        """How long it is."""
        return (self.end - self.begin) / HOUR_S

    def days(self) -> list[str]:
        """Return the days (UTC) that it touches, such as ``2026-11-23``."""
        first = datetime.fromtimestamp(self.begin, UTC).date()
        last = datetime.fromtimestamp(self.end - 1, UTC).date()
        return [(first + timedelta(days=day)).isoformat() for day in range((last - first).days + 1)]

    def __str__(self) -> str:
        return f"{local_text(self.begin)} to {local_text(self.end)}"


def parse_period(text: str, option: str, end: float) -> Period:
    """Return the period that ``text`` names; a length ends at ``end``.

    A date without a time includes the whole day at either end. Raises BadRequest, which names the option.
    """
    length = _LENGTH.fullmatch(text.strip())
    if length is not None:
        seconds = float(length[1]) * _UNITS_S[length[2]]
        return _checked(Period(end - seconds, end), text, option)
    first, dots, last = (part.strip() for part in text.partition(".."))
    begin, until = _moment(first), _moment(last)
    if not dots or begin is None or until is None:
        raise BadRequest(f"{option} is {text!r}; expected {_ALLOWED}")
    if len(last) == len("2026-11-07"):
        until = _next_day(until)
    return _checked(Period(begin.timestamp(), until.timestamp()), text, option)


def local_text(unix_s: float) -> str:
    """Return a time for people, in the local zone, such as ``2026-11-23 09:30``."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(unix_s))


def _checked(period: Period, text: str, option: str) -> Period:
    if not 0 < period.end - period.begin <= MAX_S:
        raise BadRequest(
            f"{option} is {text!r}, which is {period.hours:g} hours; allowed is more than 0, "
            f"at most {MAX_S / HOUR_S:g}"
        )
    return period


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        return None


def _next_day(day: datetime) -> datetime:
    # Noon of the next day, back to its midnight: a day may have 23 or 25 hours.
    noon = day + timedelta(hours=36)
    return datetime(noon.year, noon.month, noon.day).astimezone()
