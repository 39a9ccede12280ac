"""What the rows of each group of streams used to look like. Pure; `reference_file` stores it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from streamer.drift.calibration import (
    BUCKETS,
    LEAST_ROWS,
    MAX_ROWS,
    SEASON_S,
    bucket_of,
    calibrate,
    plain,
)
from streamer.drift.columns import Row
from streamer.drift.reference_scorer import Yardstick
from streamer.drift.table import Table

#: Stands for every group that has no reference of its own.
ANY = "*"
#: Rows kept of all groups together.
MAX_TOTAL_ROWS = 40_000


@dataclass(frozen=True, slots=True)
class GroupReference:
    """One group's. ``seasons`` are those parts of the day that could be calibrated on their own."""

    #: As rows name it; empty: unknown, and compared with any.
    model: str
    rows: int
    span_h: float
    whole: Yardstick
    seasons: Mapping[int, Yardstick] = field(default_factory=dict)

    def at(self, unix_s: float) -> Yardstick:
        """Return what a window around that time is measured by."""
        return self.seasons.get(bucket_of(unix_s), self.whole)


@dataclass(frozen=True, slots=True)
class Reference:
    """All groups', from one file."""

    groups: Mapping[str, GroupReference]
    #: ISO 8601, UTC; empty where the file does not say.
    created: str
    sha256: str

    def of(self, group: str) -> GroupReference | None:
        """Return the reference of a group; None without."""
        return self.groups.get(group) or self.groups.get(ANY)


def newest_model(rows: Sequence[Row]) -> str:
    """Return the model of the newest tenth of the rows, in which the others have no say."""
    newest = sorted(rows, key=lambda row: row.at)[-max(1, len(rows) // 10) :]
    return Counter(row.model for row in newest).most_common(1)[0][0] if newest else ""


def learn(
    rows: Sequence[Row], window_s: float, alpha: float, most: int = MAX_ROWS
) -> tuple[GroupReference, list[Row]]:
    """Return a group's reference with its thresholds, and the rows to be stored, ``most`` of them.

    Only rows of the newest model count. Thresholds come from all of them, thinned afterwards: a block must
    hold as many rows as a window. Calibrated where that can be; raises ValueError below ``LEAST_ROWS``.
    """
    model = newest_model(rows)
    rows = sorted((row for row in rows if row.model == model), key=lambda row: row.at)
    if len(rows) < LEAST_ROWS:
        raise ValueError(f"{len(rows)} rows of model {model!r}; needed are {LEAST_ROWS}")
    table = Table.of(rows)
    span_s = float(table.at[-1] - table.at[0])
    positions = range(len(rows)) if len(rows) <= most else _even(len(rows), most)
    kept = [rows[position] for position in positions]
    thin = Table.of(kept)
    seasons = {}
    if span_s >= SEASON_S - window_s:
        for bucket in range(BUCKETS):
            own = calibrate(table, window_s, alpha, bucket)
            if own is not None:
                seasons[bucket] = Yardstick(season_rows(thin, bucket), own)
    whole = Yardstick(thin, calibrate(table, window_s, alpha) or plain())
    return GroupReference(model, len(kept), span_s / 3600, whole, seasons), kept


def season_rows(table: Table, bucket: int) -> Table:
    """Return the rows of one part of the day."""
    return table.take(np.array([bucket_of(at) == bucket for at in table.at], np.bool_))


def _even(count: int, most: int) -> list[int]:
    return [round(place * (count - 1) / (most - 1)) for place in range(most)]
