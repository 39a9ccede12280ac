"""Decides which days a rolling reference holds: what is added, what is skipped and why, what leaves. Pure.

A rolling reference begins as one that a person has made, the first reference. Later days are added to it when
nothing speaks against them. The first reference stays as it was: a day that is further from it than ordinary
days may be is not added, so a slow drift cannot become normal little by little.
`streamer.sampling.rolling_reference` reads the rows and writes the files.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from streamer.drift.blocks import Blocks, Floats
from streamer.drift.day import DAY_S, HOUR_S, SEASON_S, SLOTS, slot_of, weekday_of
from streamer.drift.episode import Episode
from streamer.drift.group_limits import Limits
from streamer.drift.levels import LENGTHS, deviations, middles
from streamer.drift.object_levels import places
from streamer.drift.reference import GroupReference
from streamer.drift.rows import Table
from streamer.drift.units import BETWEEN_DAYS, FLOORS

#: A day is added this long after it has ended: a slow change is found hours after it has begun.
DELAY_S = DAY_S
#: A gradual change may have begun this long before it was noticed, a sudden one this long.
GRADUAL_BEFORE_S, SUDDEN_BEFORE_S = DAY_S, HOUR_S
#: Days that are older than this leave, even if they are the last ones of their weekday.
MAX_AGE_S = 56 * DAY_S
#: A half hour that the reference knows is missing if it has less than this share of its usual rows; a day may
#: lack this many of them.
MIN_SLOT_SHARE, MAX_MISSING_SLOTS = 0.5, 2
#: Share of a day's rows that must be of the reference's model.
MIN_MODEL_SHARE = 0.95
#: A day may be this many limits of six-hour means away from the first reference while that is no more than
#: ordinary days have between them, else one limit; and at least so many of the smallest changes that matter.
FIRST_LIMITS, FIRST_FLOORS = 1.5, 2.0


@dataclass(frozen=True, slots=True, order=True)
class Period:
    """Holds a day, or a part of one: ``begin`` <= t < ``end``, unix seconds."""

    begin: float
    end: float
    #: Number of its rows in the history when it was added; 0: there were none.
    rows: int = field(default=0, compare=False)

    @property
    def date(self) -> str:
        """Its local date in ISO 8601."""
        return time.strftime("%Y-%m-%d", time.localtime(self.begin))

    @property
    def weekday(self) -> int:
        """Its local weekday, 0 for Monday."""
        return int(weekday_of(np.array([self.begin]))[0])

    @property
    def hours(self) -> float:
        """Its length."""
        return (self.end - self.begin) / HOUR_S


@dataclass(frozen=True, slots=True)
class SkippedDay:
    """Says why a day was not added."""

    date: str
    reason: str


def next_midnight(unix_s: float) -> float:
    """Return the first local midnight after a time."""
    local = time.localtime(unix_s)
    return time.mktime((local.tm_year, local.tm_mon, local.tm_mday + 1, 0, 0, 0, 0, 0, -1))


def days_between(begin: float, end: float) -> list[Period]:
    """Cut a time at local midnights."""
    found = []
    while begin < end:
        until = min(end, next_midnight(begin))
        found.append(Period(begin, until))
        begin = until
    return found


def held_days(days: Iterable[Period], most_days: int, now: float) -> list[Period]:
    """Return the days that a reference of at most ``most_days`` keeps, oldest first.

    The oldest day leaves first, but the last one of its weekday stays while there is another one to leave.
    """
    kept = sorted(day for day in days if now - day.end <= MAX_AGE_S)
    while sum(day.hours for day in kept) > 24 * most_days + 1:
        weekdays = [day.weekday for day in kept]
        leaving = next((day for day in kept if weekdays.count(day.weekday) > 1), kept[0])
        kept.remove(leaving)
    return kept


def drift_periods(episode: Episode, now: float) -> list[Period]:
    """Return the times in which a group was in drift, from when the change may have begun."""
    found = []
    for past in episode.past:
        if past.drift:
            sudden = past.onset is not None and past.onset.kind == "sudden"
            begin = min(past.begin, past.onset.at) if past.onset is not None else past.begin
            found.append(Period(begin - (SUDDEN_BEFORE_S if sudden else GRADUAL_BEFORE_S), past.end))
    if episode.on and episode.since is not None:
        onset = episode.onset
        sudden = onset is not None and onset.kind == "sudden"
        begin = min(episode.since, onset.at) if onset is not None else episode.since
        found.append(Period(begin - (SUDDEN_BEFORE_S if sudden else GRADUAL_BEFORE_S), max(begin, now)))
    return found


@dataclass(frozen=True, slots=True)
class Verdict:
    """Says whether a day is added to a reference."""

    #: Why it is not; empty if it is.
    reason: str
    #: Whether it, or the last day that could be compared, is too far from the first reference.
    far: bool


def judge_day(
    day: Period,
    table: Table,
    of_model: float,
    reference: GroupReference,
    first: GroupReference,
    drift: Sequence[Period],
    *,
    far: bool = False,
) -> Verdict:
    """Return whether a day with these rows is added.

    ``of_model`` is the share of its rows that are of the reference's model, ``drift`` the times in which its
    group was in drift, and ``far`` that of the verdict on the day before.
    """
    if any(period.begin < day.end and day.begin < period.end for period in drift):
        return Verdict("in drift", far)
    if reference.limits is None or first.limits is None:
        return Verdict("the reference has no calibrated thresholds", far)
    missing = _missing(day, table, reference.limits)
    if missing > MAX_MISSING_SLOTS or not len(table):
        return Verdict(f"rows are missing in {missing / 2:g} h that the reference knows", far)
    if of_model < MIN_MODEL_SHARE:
        return Verdict(f"{100 * (1 - of_model):.0f} % of the rows are of another model", far)
    if first.limits.seen.knows_day(day.begin + 1):
        reason = _far_from(first, first.limits, table)
        return Verdict(reason, bool(reason))
    # A kind of day that the first reference has not seen cannot be compared with it.
    return Verdict("the days before it are too far from the first reference" if far else "", far)


def _missing(day: Period, table: Table, limits: Limits) -> int:
    """Return how many half hours of a day have too few rows, of those that the reference knows."""
    usual = float(limits.typical[0]) * DAY_S / SLOTS / limits.block_s
    starts = np.arange(day.begin, day.end, DAY_S / SLOTS)
    held = np.bincount(slot_of(table.at), minlength=SLOTS) if len(table) else np.zeros(SLOTS)
    known = limits.seen.slots & np.isin(np.arange(SLOTS), slot_of(starts + 1))
    return int((known & (held < MIN_SLOT_SHARE * usual)).sum())


def _far_from(first: GroupReference, limits: Limits, table: Table) -> str:
    """Return how a day differs from the first reference by more than it may; an empty text if it does not."""
    blocks = Blocks.of_table(table, limits.signals, limits.block_s)
    seasonal = first.span_h * HOUR_S >= SEASON_S
    # A reference of less than two days knows no times of day, so only the whole day can be compared.
    length = min(LENGTHS[-1], len(blocks)) if seasonal else len(blocks)
    off = np.abs(deviations(blocks, limits.expectation.at(middles(blocks)), length, limits.typical))
    allowed = _allowed(limits, blocks, length, seasonal=seasonal)
    ratios = np.nan_to_num(off / allowed, nan=0.0)
    run, signal = np.unravel_index(np.argmax(ratios), ratios.shape)
    if ratios[run, signal] <= 1:
        return ""
    name = limits.signals.columns[signal]
    return (
        f"{name} is {off[run, signal]:.3g} away from the first reference; "
        f"{allowed[run, signal]:.3g} is allowed: check the camera, then make a new reference"
    )


def _allowed(limits: Limits, blocks: Blocks, length: int, *, seasonal: bool) -> Floats:
    """Return how far each mean of so many blocks may be from the first reference, (runs, signals)."""
    columns = limits.signals.columns
    floors, between = (np.array([unit[name] for name in columns]) for unit in (FLOORS, BETWEEN_DAYS))
    runs = len(blocks) - length + 1
    levels = limits.levels.get(LENGTHS[-1]) if seasonal else None
    if levels is None:
        return np.broadcast_to(between, (runs, len(columns)))
    centres = blocks.ends[length - 1 :] - length * blocks.block_s / 2
    own = levels[slot_of(centres)].copy()
    of_objects = limits.objects.limits.get(LENGTHS[-1])
    if of_objects is not None:  # of the typical number of objects; deviations of fewer are reduced
        own[:, places(columns)] = of_objects
    return np.asarray(
        np.maximum(FIRST_FLOORS * floors, np.maximum(own, np.minimum(FIRST_LIMITS * own, between)))
    )


def missing_days(days: Sequence[Period]) -> list[str]:
    """Return the local weekdays that no day of a reference is of, such as `Sunday`."""
    held = {day.weekday for day in days if day.hours >= 6}
    names = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
    return [name for place, name in enumerate(names) if place not in held]


def total_hours(days: Iterable[Period]) -> float:
    """Return the length of all days together."""
    return math.fsum(day.hours for day in days)
