"""Reads the samples of a stream: those of a drift to look at, and random ones that estimate what it is like.

Random samples are weighted with the inverse of their probability, so that they stand for all frames. They are
few, two per hour, so they judge only what has no rows, over a whole period and with fixed thresholds.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from streamer.datasets.source import SIDECARS, Source
from streamer.drift.features import MAX_CLASSES, NO_CLASS
from streamer.drift.rows import NUMERIC, Row, model_key
from streamer.drift_evaluation.period import Period
from streamer.drift_evaluation.stored_rows import BATCH
from streamer.drift_evaluation.stream_result import FoundEpisode

#: Ids of random samples and of reports end with their time.
_TIMED = re.compile(r"-\d+\.json$")
#: Most sidecars of a stream that are read in a period, and most keys of samples that are listed.
MAX_READ, MAX_LISTED = 3000, 20
#: Estimates need so many random samples.
MIN_ESTIMATE = 10
#: Columns that are estimated, and what they are called.
_ESTIMATED = {
    "n_boxes": "boxes per frame",
    "no_box": "share of frames without a box",
    "conf_mean": "confidence",
}


@dataclass(frozen=True, slots=True)
class DrawnRow:
    """Holds the row of a random sample, and the probability with which its frame was drawn."""

    row: Row
    probability: float


def streams_with_samples(source: Source, period: Period) -> set[str]:
    """Return the names of the streams that have samples in a period. Raises CannotRead."""
    parts = (key.split("/") for day in period.days() for key in source.keys(f"{SIDECARS}dt={day}/"))
    return {part[3].removeprefix("stream=") for part in parts if len(part) == 5}


def random_rows(source: Source, stream: str, period: Period) -> list[DrawnRow]:
    """Return the random samples of a stream in a period. Raises CannotRead."""
    keys = [key for key in _keys(source, stream, period) if _TIMED.search(key)]
    drawn = (_drawn(sidecar) for _, sidecar in _sidecars(source, keys))
    return [found for found in drawn if found is not None and period.begin <= found.row.at < period.end]


def samples_of(source: Source, stream: str, period: Period, episodes: Sequence[FoundEpisode]) -> list[str]:
    """Return the keys of images that were kept because of a drift, newest first. Raises CannotRead."""
    keys = [key for key in _keys(source, stream, period) if not _TIMED.search(key)]
    found = []
    for _, sidecar in _sidecars(source, keys):
        try:
            at, reasons = _time_of(sidecar), sidecar["selection"]["reasons"]
            if "drift" in reasons and any(each.since <= at for each in episodes):
                found.append((at, str(sidecar["image"]["key"])))
        except (KeyError, TypeError, ValueError):
            continue
    return [key for _, key in sorted(found, reverse=True)[:MAX_LISTED]]


def equally_weighted(drawn: Sequence[DrawnRow]) -> list[Row]:
    """Return as many rows, each for equally many frames: systematic resampling by ``1 / p``."""
    if not drawn:
        return []
    # In order of time, weights that alternate could keep step with the places and always be missed.
    drawn = sorted(drawn, key=lambda each: (each.probability, each.row.at))
    total = np.cumsum([1 / each.probability for each in drawn])
    places = (np.arange(len(drawn)) + 0.5) / len(drawn) * total[-1]
    return [drawn[place].row for place in np.searchsorted(total, places)]


def estimates_text(now: Sequence[DrawnRow], before: Sequence[DrawnRow]) -> str:
    """Return what random samples say about detections, with standard errors; empty with too few of them."""
    if len(now) < MIN_ESTIMATE or len(before) < MIN_ESTIMATE:
        return ""
    parts = []
    for column, name in _ESTIMATED.items():
        present, usual = _mean(now, column), _mean(before, column)
        if present is not None and usual is not None:
            parts.append(
                f"{name} {present[0]:.3g} (standard error {present[1]:.1g}), "
                f"before {usual[0]:.3g} ({usual[1]:.1g})"
            )
    head = f"{len(now)} random samples in the period and {len(before)} before estimate: "
    return f"{head}{'; '.join(parts)}." if parts else ""


def _mean(drawn: Sequence[DrawnRow], column: str) -> tuple[float, float] | None:
    """Return the mean over all frames (Hájek: ``sum(y/p) / sum(1/p)``) and its standard error."""
    values = np.array([each.row.numbers[NUMERIC.index(column)] for each in drawn], np.float64)
    weights = np.array([1 / each.probability for each in drawn])
    known = np.isfinite(values)
    values, weights = values[known], weights[known]
    if len(values) < MIN_ESTIMATE:
        return None
    mean = float((weights * values).sum() / weights.sum())
    error = float(np.sqrt((weights**2 * (values - mean) ** 2).sum()) / weights.sum())
    return mean, error


def _keys(source: Source, stream: str, period: Period) -> list[str]:
    keys = [key for day in period.days() for key in source.keys(f"{SIDECARS}dt={day}/stream={stream}/")]
    return keys[-MAX_READ:]


def _sidecars(source: Source, keys: Sequence[str]) -> Iterator[tuple[str, Any]]:
    for start in range(0, len(keys), BATCH):
        batch = keys[start : start + BATCH]
        for key, data in zip(batch, source.read_all(batch), strict=True):
            try:
                yield key, json.loads(data or b"")
            except ValueError:
                continue  # `streamer samples verify` names damaged samples


def _time_of(sidecar: Any) -> float:
    return datetime.fromisoformat(sidecar["captured_at"]).timestamp()


def _drawn(sidecar: Any) -> DrawnRow | None:
    """Return the row that a sidecar describes; None if it is not that of a random sample with features."""
    try:
        probability, features = sidecar["selection"]["probability"], sidecar["features"]
        if probability is None or not 0 < probability <= 1 or not features:
            return None
        shown = [each for each in sidecar["detections"] if not each["below_threshold"]]
        best = max(shown, key=lambda each: each["score"], default=None)
        model, image = sidecar["model"], sidecar["image"]
        row = Row(
            _time_of(sidecar),
            sidecar["stream"],
            0,
            model_key(model["version"], model["sha256"]),
            np.array([math.nan if features.get(n) is None else features[n] for n in NUMERIC], np.float32),
            NO_CLASS if best is None else str(best["label"]),
            f"{image['width']}x{image['height']}",
            sidecar["transport"],
            tuple(Counter(str(each["label"]) for each in shown).most_common(MAX_CLASSES)),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return DrawnRow(row, float(probability))
