"""Finds the files of rows of all replicas, and joins their rows by stream and half hour.

Memory holds the names of all files of the periods, and the rows of one half hour of one stream.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from streamer.datasets.source import Source
from streamer.drift.recent_rows import MAX_SHARE
from streamer.drift.row_file import (
    FILE_S,
    PREFIX,
    DamagedRows,
    OtherFeatures,
    RowFile,
    RowFileName,
    day_prefix,
    decode,
)
from streamer.drift.rows import Row
from streamer.drift_evaluation.period import Period

#: Files that are read at a time.
BATCH = 16
#: Replicas that measure a stream at the same time for longer than this, in half an hour, are mentioned.
OVERLAP_S = 120.0
#: Most notes about single files.
MAX_NOTES = 20


@dataclass(slots=True)
class ReplicaRows:
    """Says what one replica has stored in the periods."""

    #: Begin of its first file and end of its last, unix seconds.
    first: float
    last: float
    files: int = 0
    streams: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Joined:
    """Holds the rows of one stream in [``begin``, ``begin + FILE_S``), in order of time."""

    begin: int
    rows: list[Row]
    #: Number of rows of each replica, and of those that other files had, too.
    replicas: Counter[str]
    repeated: int = 0
    #: Seconds in which two replicas measured the stream.
    overlap_s: float = 0.0
    #: Seconds between two rows of a stream, as the files say.
    interval_s: float = 5.0


class StoredRows:
    """Lists files of rows, and reads and joins them. ``notes`` says which files were left out, and why."""

    def __init__(self, source: Source) -> None:
        self._source = source
        #: By stream, in order of time.
        self._files: dict[str, list[RowFileName]] = {}
        self.replicas: dict[str, ReplicaRows] = {}
        #: Why files were left out, and how many were beyond ``MAX_NOTES``.
        self.notes: list[str] = []
        self.left_out = 0

    def scan(self, periods: Sequence[Period], on_progress: Callable[[str], None]) -> None:
        """Find the files that overlap one of the periods. Raises CannotRead."""
        found: dict[str, list[RowFileName]] = defaultdict(list)
        days = sorted({day for period in periods for day in period.days()})
        for day in days:
            on_progress(f"listing the rows of {day}")
            for key in self._source.keys(day_prefix(day)):
                name = RowFileName.parse(key)
                if name is not None and any(
                    period.begin - FILE_S < name.begin < period.end for period in periods
                ):
                    found[name.stream].append(name)
                    self._count(name)
        for names in found.values():
            names.sort(key=lambda name: (name.begin, name.replica, name.key))
        self._files = dict(sorted(found.items()))

    def _count(self, name: RowFileName) -> None:
        replica = self.replicas.setdefault(name.replica, ReplicaRows(name.begin, name.begin + FILE_S))
        replica.first, replica.last = min(replica.first, name.begin), max(replica.last, name.begin + FILE_S)
        replica.files += 1
        replica.streams.add(name.stream)

    @property
    def streams(self) -> list[str]:
        """The names of all streams."""
        return list(self._files)

    def files_of(self, stream: str, period: Period) -> int:
        """Return the number of files of a stream in a period."""
        return len(self._names(stream, period))

    def newest(self) -> RowFileName | None:
        """Return the newest file of the whole store, None if there is none. Raises CannotRead."""
        names = (RowFileName.parse(key) for key in self._source.keys(PREFIX))
        return max((name for name in names if name is not None), key=lambda name: name.begin, default=None)

    def half_hours(self, stream: str, period: Period, max_rows: int) -> Iterator[Joined]:
        """Yield the half hours of a stream that have rows, at most ``max_rows`` of each, evenly thinned.

        A row that several files contain counts once. Raises CannotRead.
        """
        names = self._names(stream, period)
        for begin, group in itertools.groupby(self._read(names), key=lambda pair: pair[0].begin):
            joined = _join(begin, [file for _, file in group], period)
            if len(joined.rows) > max_rows:
                step = (len(joined.rows) - 1) / max(1, max_rows - 1)
                joined.rows = [joined.rows[round(place * step)] for place in range(max_rows)]
            if joined.rows:
                yield joined

    def _names(self, stream: str, period: Period) -> list[RowFileName]:
        names = self._files.get(stream, [])
        return [name for name in names if period.begin - FILE_S < name.begin < period.end]

    def _read(self, names: Sequence[RowFileName]) -> Iterator[tuple[RowFileName, RowFile]]:
        for start in range(0, len(names), BATCH):
            batch = names[start : start + BATCH]
            for name, data in zip(batch, self._source.read_all([name.key for name in batch]), strict=True):
                if data is None:
                    self._leave_out(f"{name.key}: it was deleted meanwhile")
                    continue
                try:
                    file = decode(data, name.key)
                except (DamagedRows, OtherFeatures) as error:
                    self._leave_out(str(error))
                    continue
                yield name, file

    def _leave_out(self, why: str) -> None:
        self.left_out += 1
        if len(self.notes) < MAX_NOTES:
            self.notes.append(why)


def most_rows(interval_s: float) -> int:
    """Return how many rows of a name one replica measures in half an hour at most."""
    return int(MAX_SHARE * FILE_S / interval_s)


def _join(begin: int, files: Sequence[RowFile], period: Period) -> Joined:
    rows: dict[tuple[str, int, float], Row] = {}
    total = 0
    spans: dict[str, tuple[float, float]] = {}
    counts: Counter[str] = Counter()
    for file in files:
        for row in file.rows:
            if not period.begin <= row.at < period.end:
                continue
            total += 1
            key = file.replica, row.session, row.at
            if key in rows:
                continue
            rows[key] = row
            counts[file.replica] += 1
            first, last = spans.get(file.replica, (row.at, row.at))
            spans[file.replica] = min(first, row.at), max(last, row.at)
    overlap_s = 0.0
    if len(spans) > 1:
        (_, first_end), *others = sorted(spans.values())
        for start, end in others:
            overlap_s += max(0.0, min(first_end, end) - start)
            first_end = max(first_end, end)
    return Joined(
        begin,
        sorted(rows.values(), key=lambda row: row.at),
        counts,
        total - len(rows),
        overlap_s,
        min((file.interval_s for file in files), default=5.0),
    )
