"""Defines what is found out about one stream: its episodes, its windows, and why it cannot be judged."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

import numpy as np
import numpy.typing as npt

from streamer.drift.change_points import Kind
from streamer.drift.reference import GroupReference
from streamer.drift.rows import NUMERIC
from streamer.drift.severity import Severity


class Verdict(StrEnum):
    """What is said of a stream, and of all streams together."""

    DRIFT = "drift"
    NONE = "none"
    CANNOT_JUDGE = "cannot_judge"


@dataclass(frozen=True, slots=True)
class MovedColumn:
    """Says how far a column was from its reference when an episode was at its worst."""

    name: str
    ratio: float
    #: What the ratio was measured with: `window`, `1 h`, `step`, …
    basis: str
    #: Medians of the reference and of the window; None for categories.
    medians: tuple[float, float] | None


@dataclass(slots=True)
class FoundEpisode:
    """Holds one episode of drift. Times are unix seconds."""

    #: End of the window that began it, and of the last one in it.
    since: float
    until: float
    #: Whether it lasted to the end of the period.
    goes_on: bool
    severity: Severity
    #: Greatest ratio of score to threshold.
    worst: float
    #: How and when the change began, as estimated; None if that cannot be told.
    kind: Kind | None
    changed_at: float | None
    #: Columns that had moved at the worst window, those that moved most first.
    moved: list[MovedColumn]
    engine: Literal["evidently", "builtin"]


@dataclass(frozen=True, slots=True)
class WindowPoint:
    """Holds the outcome of one window."""

    end: float
    #: `scored`, `insufficient_data`, `not_seen`.
    outcome: str
    ratio: float
    drift: bool
    recurring: bool
    #: Whether the window has too few rows of the reference's model.
    stale: bool


@dataclass(slots=True)
class Course:
    """Holds the course of the numeric columns over half hours, for charts."""

    #: Begin of each half hour, unix seconds.
    at: list[float] = field(default_factory=list)
    #: Mean of each column in each half hour, (columns,) each.
    means: list[npt.NDArray[np.float64]] = field(default_factory=list)

    def add(self, begin: float, numbers: npt.NDArray[np.float32]) -> None:
        """Add the rows of a half hour, (rows, columns)."""
        finite = np.isfinite(numbers)
        count = finite.sum(axis=0)
        total = np.where(finite, numbers, 0.0).sum(axis=0, dtype=np.float64)
        self.at.append(begin)
        self.means.append(np.where(count > 0, total / np.maximum(count, 1), np.nan))

    def column(self, name: str) -> list[tuple[float, float]]:
        """Return time and mean of a column, without gaps."""
        place = NUMERIC.index(name)
        pairs = ((at, float(means[place])) for at, means in zip(self.at, self.means, strict=True))
        return [(at, value) for at, value in pairs if np.isfinite(value)]


@dataclass(slots=True)
class StreamResult:
    """Holds what was found about one stream."""

    stream: str
    verdict: Verdict = Verdict.CANNOT_JUDGE
    #: Why it cannot be judged; empty if it can.
    reason: str = ""
    episodes: list[FoundEpisode] = field(default_factory=list)
    windows: list[WindowPoint] = field(default_factory=list)
    #: Rows in the period, by replica and by model.
    replicas: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    #: By replica: begin of its first and end of its last half hour in the period, unix seconds.
    spans: dict[str, tuple[float, float]] = field(default_factory=dict)
    #: Rows that several files had, which count once.
    repeated: int = 0
    overlap_s: float = 0.0
    #: Times without rows in the period, (begin, end) in unix seconds.
    gaps: list[tuple[float, float]] = field(default_factory=list)
    #: None without a reference.
    reference: GroupReference | None = None
    #: Half hours of the period and, if the reference is made of stored rows, of the reference.
    course: Course = field(default_factory=Course)
    reference_course: Course = field(default_factory=Course)
    #: What a reader should know beside the verdict.
    notes: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Number of rows in the period."""
        return self.replicas.total()

    @property
    def scored(self) -> int:
        """Number of windows that were compared with the reference, with its model."""
        return sum(window.outcome == "scored" and not window.stale for window in self.windows)

    @property
    def moved(self) -> list[str]:
        """Names of the columns that moved in some episode, in the order in which they moved."""
        return list(dict.fromkeys(column.name for episode in self.episodes for column in episode.moved))
