"""Reads from a manifest how a model was trained, promoted and scored, as far as clients are told.

`lineage` beside it holds the short form for ``/health``.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from inference.models.manifest import Manifest

#: Bounds of what workers are sent of a manifest.
_MAX_PARTS, _MAX_FACTS, _MAX_CHARS = 4, 16, 200
#: Figures of an evaluation that are one number each.
_NUMBERS = (
    "map50",
    "map50_95",
    "precision",
    "recall",
    "false_per_empty_picture",
    "threshold",
    "pictures",
    "empty_pictures",
    "run_ms",
)
_TEXTS = ("set", "part", "provider")
#: Figures by class, by their names in the manifest.
_BY_CLASS = ("ap50", "ap50_95", "objects")
_SIZES = ("small", "medium", "large")
_WITH_INTERVAL = ("map50", "map50_95", "false_per_empty_picture")


def card_of(manifest: Manifest, labels: Collection[str]) -> dict[str, Any] | None:
    """Return licence, source, training, promotion and evaluations by part; None if the manifest has none.

    Manifests are written by people, too: values of another kind than `streamer train` and `streamer promote`
    write are left out. Figures by class are kept for classes among ``labels`` alone.
    """
    metrics = manifest.metrics or {}
    evaluations = {
        part[:_MAX_CHARS]: figures
        for part, values in list(metrics.items())[:_MAX_PARTS]
        if isinstance(values, Mapping) and (figures := _evaluation(values, labels))
    }
    promotion = metrics.get("promotion")
    card = {
        "licence": _text(manifest.licence),
        "source": _text(manifest.source),
        "training": _facts(manifest.training or {}),
        "promotion": _promotion(promotion) if isinstance(promotion, Mapping) else None,
        "evaluations": evaluations,
    }
    found = {name: value for name, value in card.items() if value}
    return found or None


def _evaluation(values: Mapping[str, Any], labels: Collection[str]) -> dict[str, Any]:
    found: dict[str, Any] = {name: _number(values.get(name)) for name in _NUMBERS}
    found |= {name: _text(values.get(name)) for name in _TEXTS}
    by_size = _mapping(values.get("by_size"))
    sizes = {size: _number(by_size.get(size)) for size in _SIZES if size in by_size}
    intervals = _mapping(values.get("intervals"))
    found["intervals"] = {
        name: interval for name in _WITH_INTERVAL if (interval := _numbers(intervals.get(name), 2))
    }
    by_class: dict[str, dict[str, float | None]] = {}
    for figure in _BY_CLASS:
        for label, value in _mapping(values.get(figure)).items():
            if label in labels:
                by_class.setdefault(label, {})[figure] = _number(value)
    found |= {"by_size": sizes, "by_class": by_class}
    return {name: value for name, value in found.items() if value not in (None, {}, "")}


def _promotion(values: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return when and as what the model was promoted, and what it replaced; None if it does not say."""
    promoted, replaced = _mapping(values.get("promoted")), _mapping(values.get("replaced"))
    found: dict[str, Any] = {"as": _text(promoted.get("as")), "at": _text(promoted.get("at"))}
    if not all(found.values()):
        return None
    name, sha256 = _text(replaced.get("name")), _text(replaced.get("sha256"))
    change = _numbers(replaced.get("change"), 3)
    if name and sha256:
        found["replaced"] = {"name": name, "sha256": sha256}
        if change is not None:
            found["replaced"]["map50_change"] = dict(zip(("value", "low", "high"), change, strict=True))
    return found


def _facts(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of a training that are one number or short text each."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        fact = _text(value) if isinstance(value, str) else _number(value)
        if fact is not None and len(found) < _MAX_FACTS:
            found[name[:_MAX_CHARS]] = fact
    return found


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= _MAX_CHARS else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def _numbers(value: object, count: int) -> list[float] | None:
    """Return a list of ``count`` numbers; None if the value is something else."""
    numbers = [_number(number) for number in value] if isinstance(value, list) else []
    found = [number for number in numbers if number is not None]
    return found if len(found) == len(numbers) == count else None
