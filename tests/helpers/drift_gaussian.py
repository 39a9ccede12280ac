"""Draws worlds without causes: all columns are correlated normal numbers in the units of the columns.

They are the opposite of the scenes of `drift_scene`: no physics, no counts of real objects, and every column
follows the same few factors. A monitor that holds its promise in both does not depend on either.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamer.drift.rows import NUMERIC
from tests.helpers.drift_faults import (
    CONFIDENCE,
    COVERED,
    DIRT,
    DIRT_S,
    EXPOSURE,
    FOCUS,
    FROZEN,
    KINDS,
    MIX,
    MOVED,
)
from tests.helpers.drift_rows import World
from tests.helpers.drift_series import DAY_S, HOUR_S, INTERVAL_S, START, Floats, Series

#: Shares of the variance by time constant in seconds, besides those of 10 s, 60 s and 20 min.
GAUSSIANS: dict[str, dict[float, float]] = {
    "gaussian": {},
    "gaussian_slow": {5400.0: 0.15, 10_800.0: 0.15},
}
LABELS = ("person", "car", "dog")
#: Mean, standard deviation and limits of each column; columns that follow from others are missing.
UNITS: dict[str, tuple[float, float, float, float]] = {
    "brightness": (112, 11, 0, 255),
    "contrast": (52, 5, 0, 128),
    "dark_frac": (0.08, 0.02, 0, 1),
    "bright_frac": (0.05, 0.015, 0, 1),
    "saturation": (0.29, 0.035, 0, 1),
    "colorfulness": (25, 3.5, 0, 200),
    "log_sharpness": (6.5, 0.3, 0, 12),
    "noise": (1.7, 0.2, 0, 30),
    "jpeg_bpp": (0.8, 0.08, 0.05, 24),
    "frame_diff": (3.2, 0.9, 0.1, 255),
    "n_boxes": (3.0, 1.3, 0, 300),
    "n_low": (0.8, 0.9, 0, 300),
    "conf_mean": (0.75, 0.05, 0.5, 1),
    "conf_max": (0.85, 0.05, 0.5, 1),
    "conf_min": (0.63, 0.06, 0.5, 1),
    "area_med": (0.03, 0.008, 0.001, 1),
    "area_max": (0.08, 0.02, 0.001, 1),
    "log_aspect_med": (0.0, 0.3, -3, 3),
    "cx_med": (0.5, 0.07, 0, 1),
    "cy_med": (0.55, 0.06, 0, 1),
    "edge_frac": (0.1, 0.12, 0, 1),
    "overlap_max": (0.12, 0.12, 0, 1),
}
#: Columns that are missing in rows without a box.
_OF_BOXES = (
    "conf_mean",
    "conf_max",
    "conf_min",
    "area_med",
    "area_max",
    "log_aspect_med",
    "cx_med",
    "cy_med",
    "edge_frac",
)


@dataclass(frozen=True, eq=False)
class GaussianRecording:
    """Holds the columns of ``UNITS`` without limits, each (n,), and what rows need besides."""

    at: Floats
    columns: dict[str, Floats]
    #: Chances of the classes, (labels,).
    mix: Floats
    now: float
    end: float
    seed: int
    kinds: tuple[str, ...] = KINDS

    @functools.cached_property
    def series(self) -> Series:
        """The rows without a fault."""
        return _rows(self.at, self.columns, self.mix, self.seed)

    def faulty(self, kind: str, begin: float, end: float, seed: int) -> Series:
        """Return the rows from ``begin`` to ``end`` with a fault that began at ``begin``."""
        first, last = np.searchsorted(self.at, [begin, end])
        at = self.at[first:last]
        values = {name: column[first:last].copy() for name, column in self.columns.items()}
        rng = np.random.default_rng((seed, KINDS.index(kind)))
        mix = np.roll(self.mix, 1) if kind == MIX else self.mix
        if kind in _CHANGES:
            _CHANGES[kind](values, np.clip((at - begin) / DIRT_S, 0, 1), rng)
        series = _rows(at, values, mix, seed + 1)
        if kind == FROZEN and len(at):
            for rows in (series.numbers, series.top, series.counts):
                rows[:] = rows[0].copy()
            series.numbers[:, NUMERIC.index("frame_diff")] = 0
        return series


def record_gaussian(name: str, seed: int, days: float, reference_days: float) -> GaussianRecording:
    """Draw a world of ``GAUSSIANS``: ``reference_days`` before `now` and ``days`` after it."""
    rng = np.random.default_rng((seed, *name.encode()))
    now = START + reference_days * DAY_S + float(rng.integers(24)) * HOUR_S
    at = np.arange(now - reference_days * DAY_S, now + days * DAY_S, INTERVAL_S)
    world = World(int(rng.integers(1 << 31)), slow=0.15, slower=GAUSSIANS[name])
    # Day by day, because all processes of all columns together are large.
    step = int(DAY_S / INTERVAL_S)
    values = np.vstack([world.values(min(step, len(at) - place)) for place in range(0, len(at), step)])
    columns = {}
    for column, (mean, deviation, _, _) in UNITS.items():
        own = mean + 0.7 * deviation * rng.standard_normal()
        spread = deviation * math.exp(0.25 * rng.standard_normal())
        columns[column] = own + spread * values[:, NUMERIC.index(column)].astype(np.float64)
    mix = np.sort(rng.dirichlet([6.0, 2.0, 1.0]))[::-1]
    return GaussianRecording(at, columns, mix, now, now + days * DAY_S, seed)


def _rows(at: Floats, columns: dict[str, Floats], mix: Floats, seed: int) -> Series:
    """Return rows of the columns within their limits, and those that follow from them."""
    rng = np.random.default_rng((seed, 0x6A55))
    n = len(at)
    found: dict[str, npt.NDArray[np.float64]] = {
        name: np.clip(values, *UNITS[name][2:]) for name, values in columns.items()
    }
    for name in ("n_boxes", "n_low"):
        found[name] = np.rint(found[name])
    boxes = found["n_boxes"].astype(np.int64)
    ordered = np.sort([found["conf_min"], found["conf_mean"], found["conf_max"]], axis=0)
    found |= dict(zip(("conf_min", "conf_mean", "conf_max"), ordered, strict=True))
    for name in _OF_BOXES:
        found[name] = np.where(boxes > 0, found[name], np.nan)
    found["overlap_max"] = np.where(boxes > 1, found["overlap_max"], 0.0)
    counts = rng.multinomial(boxes, mix)
    total = boxes + found["n_low"]
    found["no_box"] = (boxes == 0).astype(np.float64)
    found["frac_low"] = np.where(total > 0, found["n_low"] / np.maximum(total, 1), np.nan)
    found["n_classes"] = (counts > 0).sum(axis=1).astype(np.float64)
    found["aspect"], found["log_mpix"] = np.full(n, 16 / 9), np.full(n, math.log(1280 * 720 / 1e6))
    top = np.where(boxes > 0, (counts * rng.random(counts.shape)).argmax(axis=1), -1)
    numbers = np.column_stack([found[name] for name in NUMERIC]).astype(np.float32)
    return Series(at, numbers, top, counts, LABELS)


# -- faults: each takes the columns, how far dirt has come (n,), and a source of random numbers ------------


def _covered(values: dict[str, Floats], _: Floats, rng: np.random.Generator) -> None:
    dark = {"brightness": 15, "contrast": 4, "dark_frac": 0.8, "bright_frac": 0, "saturation": 0.08}
    dark |= {"colorfulness": 3, "log_sharpness": 2, "noise": 1.0, "jpeg_bpp": 0.15, "frame_diff": 0.9}
    for name, level in (dark | {"n_boxes": -5, "n_low": -5}).items():
        values[name][:] = level + 0.05 * UNITS[name][1] * rng.standard_normal(len(values[name]))


def _unfocused(values: dict[str, Floats], _: Floats, __: np.random.Generator) -> None:
    for name, change in {"log_sharpness": -2.2, "noise": -0.5, "jpeg_bpp": -0.2}.items():
        values[name] += change
    _confidence(values, 0.08)


def _moved(values: dict[str, Floats], _: Floats, rng: np.random.Generator) -> None:
    angle = rng.uniform(0, 2 * np.pi)
    values["cx_med"] += 0.1 * math.cos(angle)
    values["cy_med"] += 0.1 * math.sin(angle)
    for name in ("brightness", "contrast", "saturation", "colorfulness", "log_sharpness", "jpeg_bpp"):
        values[name] += UNITS[name][1] * rng.choice([-1, 1]) * rng.uniform(0.3, 1.0)


def _less_confident(values: dict[str, Floats], _: Floats, __: np.random.Generator) -> None:
    _confidence(values, 0.10)


def _confidence(values: dict[str, Floats], loss: float) -> None:
    for name in ("conf_mean", "conf_max", "conf_min"):
        values[name] -= loss


def _dirty(values: dict[str, Floats], thickness: Floats, _: np.random.Generator) -> None:
    for name, change in {
        "contrast": -16,
        "log_sharpness": -1.2,
        "saturation": -0.05,
        "jpeg_bpp": -0.12,
    }.items():
        values[name] += change * thickness


def _exposed(values: dict[str, Floats], _: Floats, rng: np.random.Generator) -> None:
    sign = rng.choice([-1, 1])
    values["brightness"] += 45 * sign
    values["dark_frac"] -= 0.05 * sign
    values["bright_frac"] += 0.05 * sign
    values["contrast"] -= 4


_CHANGES = {
    COVERED: _covered,
    FOCUS: _unfocused,
    MOVED: _moved,
    CONFIDENCE: _less_confident,
    DIRT: _dirty,
    EXPOSURE: _exposed,
}
