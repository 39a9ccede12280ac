"""Stores drift rows of simulated cameras as replicas do."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from streamer.drift.row_file import FILE_S, RowFile, encode
from streamer.drift.rows import NUMERIC, Row
from tests.helpers.drift_rows import World, rows

#: Midnight (UTC) of a Monday, on which simulated days begin.
MIDNIGHT = 1_800_230_400
HOUR = 3600
#: Seconds between two rows, so that a window has 120 of them, few enough for short tests.
INTERVAL_S = 15.0


def camera(
    stream: str,
    hours: float,
    *,
    seed: int = 1,
    begin: float = MIDNIGHT,
    blurred_from: float | None = None,
    model: str = "v1:ab",
) -> list[Row]:
    """Return the rows of some hours, with a lens that loses its focus at ``blurred_from`` (unix seconds)."""
    values = World(seed).values(round(hours * HOUR / INTERVAL_S))
    if blurred_from is not None:
        values[round((blurred_from - begin) / INTERVAL_S) :, NUMERIC.index("log_sharpness")] -= 12
    return list(rows(values, begin, stream=stream, model=model, interval_s=INTERVAL_S))


def files_of(found: Iterable[Row], replica: str) -> dict[str, bytes]:
    """Return the files of rows, by key, that a replica makes of rows of any streams and times."""
    grouped: dict[tuple[str, int], list[Row]] = {}
    for row in found:
        grouped.setdefault((row.stream, int(row.at // FILE_S) * FILE_S), []).append(row)
    made = (
        encode(RowFile(stream, replica, begin, INTERVAL_S, group), "1.0")
        for (stream, begin), group in grouped.items()
    )
    return dict(made)


def store(folder: Path, files: dict[str, bytes]) -> None:
    """Write files below a folder."""
    for key, body in files.items():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)


def changed(body: bytes, **fields: Any) -> bytes:
    """Return a file with other fields."""
    return gzip.compress(json.dumps(json.loads(gzip.decompress(body)) | fields).encode())


def between(found: Sequence[Row], begin: float, end: float) -> list[Row]:
    """Return the rows of [``begin``, ``end``)."""
    return [row for row in found if begin <= row.at < end]
