"""Divides the day: local time of day, half hours, and what a reference has seen of day and week. Pure."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

DAY_S, HOUR_S = 86_400.0, 3600.0
#: Half hours of a day. Limits and expectations are kept for each.
SLOTS = 48
#: From this span on, a reference is compared by the time of day.
SEASON_S = 46 * HOUR_S
#: The offsets from UTC of all hours of such a span are looked up, also of those without a time.
MAX_SPAN_H = 24 * 14
#: Rows of this many hours make a kind of day known: working days (Monday to Friday), Saturday, Sunday.
KIND_OF_DAY_H = 6.0
KINDS_OF_DAY = ("working days", "Saturday", "Sunday")
#: A half hour is known if it has at least this share of the rows that an average one has.
MIN_SLOT_SHARE = 0.1


def local(unix_s: Floats) -> Floats:
    """Return local seconds since the epoch; the offset from UTC is looked up once for each hour."""
    if not len(unix_s):
        return unix_s
    hours = np.asarray(unix_s // HOUR_S, np.int64)
    first, last = int(hours.min()), int(hours.max())
    if last - first < MAX_SPAN_H:  # np.unique takes longer than all else here
        looked_up, places = range(first, last + 1), hours - first
    else:
        found, places = np.unique(hours, return_inverse=True)
        looked_up = found.tolist()
    offsets = np.array([time.localtime(hour * HOUR_S).tm_gmtoff for hour in looked_up], np.float64)
    return np.asarray(unix_s + offsets[places], np.float64)


def hour_of(unix_s: Floats) -> Floats:
    """Return local times of day in hours, [0, 24)."""
    return np.asarray(local(unix_s) % DAY_S / HOUR_S, np.float64)


def slot_of(unix_s: Floats) -> npt.NDArray[np.intp]:
    """Return the half hour of the day in which each time lies, 0 to ``SLOTS`` - 1."""
    return np.asarray(local(unix_s) % DAY_S * SLOTS // DAY_S, np.intp)


def weekday_of(unix_s: Floats) -> npt.NDArray[np.intp]:
    """Return local weekdays, 0 for Monday."""
    return np.asarray((local(unix_s) // DAY_S + 3) % 7, np.intp)


def _kind_of(unix_s: Floats) -> npt.NDArray[np.intp]:
    """Return the kind of day of each time, as a place in ``KINDS_OF_DAY``."""
    return np.asarray(np.maximum(weekday_of(unix_s) - 4, 0), np.intp)


def kind_of_day(unix_s: float) -> str:
    """Return the kind of day of a time."""
    return KINDS_OF_DAY[_kind_of(np.array([unix_s]))[0]]


def hours_apart(hours: Floats, hour: float) -> Floats:
    """Return how far times of day are from one of them, at most 12 hours."""
    gap = np.abs(hours - hour) % 24
    return np.asarray(np.minimum(gap, 24 - gap), np.float64)


@dataclass(frozen=True, slots=True)
class Seen:
    """Says which half hours of the day, and which kinds of days, a reference has seen."""

    slots: npt.NDArray[np.bool_]
    #: In the order of ``KINDS_OF_DAY``.
    kinds: tuple[bool, bool, bool]

    @classmethod
    def of(cls, at: Floats) -> Seen:
        """Return what rows at these times have seen."""
        held = np.bincount(slot_of(at), minlength=SLOTS)
        rows_per_hour = 2 * held[held > 0].mean() if len(at) else 0.0
        days = max(1.0, (at[-1] - at[0]) / DAY_S) if len(at) else 1.0
        of_kind = np.bincount(_kind_of(at), minlength=3)
        enough = of_kind >= KIND_OF_DAY_H * rows_per_hour / days
        slots = held > MIN_SLOT_SHARE * rows_per_hour / 2
        return cls(slots, (bool(enough[0]), bool(enough[1]), bool(enough[2])))

    def covers(self, begin: float, end: float) -> bool:
        """Return whether the reference knows the time of day from ``begin`` to ``end``."""
        times = np.linspace(begin + 1, end - 1, 3)
        return bool(self.slots[slot_of(times)].all())

    def knows_day(self, unix_s: float) -> bool:
        """Return whether the reference knows this kind of day."""
        return bool(self.know_days(np.array([unix_s]))[0])

    def know_days(self, unix_s: Floats) -> npt.NDArray[np.bool_]:
        """Return the same for several times."""
        return np.asarray(np.array(self.kinds, np.bool_)[_kind_of(unix_s)], np.bool_)

    @property
    def gaps(self) -> list[str]:
        """The unknown times of day such as `18:00-08:00`, then kinds of days such as `Sunday`."""
        if self.slots.all():
            found = []
        else:
            starts = [s for s in range(SLOTS) if not self.slots[s] and self.slots[s - 1]]
            found = [f"{_clock(start)}-{_clock(self._end(start))}" for start in starts]
        return found + [name for name, known in zip(KINDS_OF_DAY, self.kinds, strict=True) if not known]

    def _end(self, start: int) -> int:
        return next(
            (start + step) % SLOTS for step in range(1, SLOTS + 1) if self.slots[(start + step) % SLOTS]
        )


def _clock(slot: int) -> str:
    return f"{slot // 2:02d}:{slot % 2 * 30:02d}"
