"""Shapes of a day: the expected number of streams over 24 hours, as a share of the peak. Pure."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamer.simulation.errors import BadScenario

DAY_S = 86_400.0
#: Seconds between two values of a shape.
STEP_S = 60.0
#: Hours and shares of the peak; straight lines are between them, and the last point leads to the first.
DAYS: dict[str, tuple[tuple[float, float], ...]] = {
    # Office hours: a quiet night, a ramp within two hours, a dip at noon, a long evening.
    "weekday": ((0, 0.2), (6, 0.15), (8, 0.85), (10, 1), (12.5, 0.8), (15, 0.95), (18, 0.6), (22, 0.3)),
    "weekend": ((0, 0.15), (8, 0.12), (14, 0.4), (20, 0.35)),
    # Shifts: everything starts within 20 minutes.
    "ramp": ((0, 0.1), (5.8, 0.1), (6.13, 1), (14, 1), (14.3, 0.5), (22, 0.5), (22.3, 0.1)),
    # Three times as many streams within five minutes, for an hour.
    "flash": ((0, 0.3), (12, 0.3333), (12.083, 1), (13, 1), (13.5, 0.4), (20, 0.3)),
    "constant": ((0, 1),),
}


def day_shape(name: str) -> NDArray[np.float64]:
    """Return the shares of the peak for each `STEP_S` of a day; shape (1440,), highest value 1.

    ``name`` is one of `DAYS`, or a CSV file with the columns ``hour`` (0 to 24) and ``streams`` (any unit),
    without which the first two columns are read. Raises BadScenario.
    """
    points = DAYS[name] if name in DAYS else _read_points(name)
    hours, values = (np.array(column, float) for column in zip(*points, strict=True))
    minutes = np.arange(0, DAY_S, STEP_S) / 3600
    shape = np.interp(minutes, hours, values, period=24)
    # A weekend is small against a weekday, so shapes keep the peak that is written above.
    return np.asarray(shape if name in DAYS else shape / values.max(), float)


def _read_points(name: str) -> list[tuple[float, float]]:
    path = Path(name)
    if not path.is_file():
        raise BadScenario(f"--day: expected one of {', '.join(DAYS)}, or a CSV file; found {name!r}")
    try:
        rows = [
            row for row in csv.reader(path.read_text().splitlines()) if row and not row[0].startswith("#")
        ]
    except (OSError, UnicodeDecodeError) as error:
        raise BadScenario(f"--day: {name}: {error}") from error
    points = []
    for number, row in enumerate(rows):
        try:
            hour, streams = float(row[0]), float(row[1])
        except (ValueError, IndexError) as error:
            if number == 0:
                continue  # the heading
            raise BadScenario(f"--day: {name}: expected hour,streams; found {','.join(row)!r}") from error
        if not (0 <= hour <= 24 and 0 <= streams < float("inf")):
            raise BadScenario(
                f"--day: {name}: expected hours 0 to 24 and streams from 0; found {','.join(row)!r}"
            )
        points.append((hour, streams))
    if len(points) < 2 or not any(streams for _, streams in points):
        raise BadScenario(f"--day: {name}: expected at least two rows of hour,streams, one above 0 streams")
    return sorted(points)
