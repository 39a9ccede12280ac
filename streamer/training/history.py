"""Keeps one row for each evaluation of a training, and writes them as a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from streamer.core.durable import write_durably


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured at one evaluation. Losses are means over the steps since the one before."""

    step: int
    #: Seconds of training so far, without those between interruption and resumption.
    seconds: float
    learning_rate: float
    score_loss: float
    box_loss: float
    map50: float
    map50_95: float
    precision: float
    recall: float
    #: The threshold at which precision and recall were read.
    threshold: float


def to_plain(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the rows as a checkpoint can hold them."""
    return [asdict(row) for row in rows]


def from_plain(rows: Sequence[dict[str, Any]]) -> list[Row]:
    """Return the rows of a checkpoint."""
    return [Row(**row) for row in rows]


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows, with a line of names. Raises OSError."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in fields(Row)]
    writer.writerow(names)
    for row in rows:
        writer.writerow([_shown(getattr(row, name)) for name in names])
    write_durably(path, text.getvalue().encode(), path.with_name(f".{path.name}.part"))


def _shown(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6g}"
