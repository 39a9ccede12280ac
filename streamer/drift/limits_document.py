"""Reads and writes limits in the file of a reference: arrays are lists, `null` is what is not judged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from typing_extensions import TypedDict

from streamer.drift.blocks import Signals
from streamer.drift.change_points import StepLimits
from streamer.drift.day import SLOTS, Floats, Seen
from streamer.drift.errors import ReferenceBroken
from streamer.drift.group_limits import Limits
from streamer.drift.levels import LENGTHS, Expectation
from streamer.drift.object_levels import ObjectLevels, places
from streamer.drift.rows import CATEGORY_COLUMNS, NUMERIC
from streamer.drift.units import TOPICS
from streamer.drift.window_limits import WindowLimits

#: Names of the kinds of days in a file, in the order of ``Seen.kinds``.
_KINDS_OF_DAY = ("working_days", "saturday", "sunday")
_Slots = Annotated[list[Any], Field(description="For each half hour of the day, a number for each signal.")]


class StoredStep(TypedDict):
    """Limits of a sudden change."""

    size: Annotated[int, Field(description="Blocks on either side of the change.")]
    rise: _Slots
    fall: _Slots
    deviation: _Slots
    topics: Annotated[list[Any], Field(description="For each half hour, the limit of each joint statistic.")]
    inverses: Annotated[list[Any], Field(description="Inverse correlations of the signals of each topic.")]


class StoredObjects(TypedDict):
    """Limits of signals that are means over objects, by length in blocks, for the typical number of boxes."""

    exponent: Annotated[
        float, Field(description="Power of the number of boxes with which the variance falls.")
    ]
    typical: Annotated[dict[str, float], Field(description="The typical number of boxes.")]
    limits: Annotated[dict[str, list[Any]], Field(description="A limit for each of these signals.")]


class StoredLimits(TypedDict):
    """Limits of one group."""

    block_s: Annotated[float, Field(gt=0, description="Length of a block in seconds.")]
    labels: Annotated[list[str], Field(description="Labels whose shares are signals, after the columns.")]
    typical: Annotated[list[float], Field(description="Typical number of values of each signal in a block.")]
    expected: Annotated[
        list[Any],
        Field(
            description="What to expect of each signal, by half hour of the day, for all days or by weekday."
        ),
    ]
    levels: Annotated[
        dict[str, _Slots], Field(description="By length in blocks: the limits of deviations of the mean.")
    ]
    objects: Annotated[StoredObjects, Field(description="Limits of signals that are means over objects.")]
    steps: Annotated[list[StoredStep], Field(description="Limits of sudden changes.")]
    seen: Annotated[
        dict[str, Any],
        Field(description="`slots`: whether each half hour is known; `working_days`, `saturday`, `sunday`."),
    ]
    excess: Annotated[
        dict[str, float], Field(description="By numeric column: excess of a distance over that of the means.")
    ]
    categories: Annotated[
        dict[str, float | None], Field(description="By column of categories: the threshold of its distance.")
    ]


def describe_limits(windows: WindowLimits) -> StoredLimits:
    """Return the JSON form of limits."""
    limits = windows.limits
    return {
        "block_s": limits.block_s,
        "labels": list(limits.signals.labels),
        "typical": _dump(limits.typical),
        "expected": _dump(limits.expectation.means),
        "levels": {str(length): _dump(values) for length, values in limits.levels.items()},
        "objects": {
            "exponent": _rounded(limits.objects.exponent) or 0.0,
            "typical": {
                str(length): _rounded(boxes) or 0.0 for length, boxes in limits.objects.typical.items()
            },
            "limits": {str(length): _dump(values) for length, values in limits.objects.limits.items()},
        },
        "steps": [
            {
                "size": step.size,
                "rise": _dump(step.rise),
                "fall": _dump(step.fall),
                "deviation": _dump(step.deviation),
                "topics": _dump(step.topics),
                "inverses": [_dump(inverse) for inverse in step.inverses],
            }
            for step in limits.steps
        ],
        "seen": {
            "slots": [int(slot) for slot in limits.seen.slots],
            **dict(zip(_KINDS_OF_DAY, limits.seen.kinds, strict=True)),
        },
        "excess": {name: _rounded(value) or 0.0 for name, value in windows.excess.items()},
        "categories": {name: _rounded(value) for name, value in windows.categories.items()},
    }


def parse_limits(stored: Any, where: str) -> WindowLimits:
    """Return limits from their JSON form. Raises ReferenceBroken, which names ``where`` and the field."""
    if not isinstance(stored, dict):
        raise ReferenceBroken(f"{where}: limits is no map")
    field = _Fields(stored, f"{where}: limits")
    labels = field.get("labels", list)
    signals = Signals(tuple(str(label) for label in labels))
    width = len(signals)
    means = field.array("expected", np.nan, 3)
    if means.shape[1:] != (SLOTS, width) or len(means) not in (1, 7):
        raise ReferenceBroken(
            f"{where}: limits: expected is {means.shape}; needed is (1 or 7, {SLOTS}, {width})"
        )
    levels = _parse_lengths(field.get("levels", dict), (SLOTS, width), f"{where}: levels")
    objects = _parse_objects(field.get("objects", dict), signals.columns, f"{where}: objects")
    steps = [_parse_step(step, width, f"{where}: steps") for step in field.get("steps", list)]
    seen = _Fields(field.get("seen", dict), f"{where}: seen")
    slots = seen.array("slots", 0.0, (SLOTS,)) > 0
    limits = Limits(
        signals,
        float(field.array("block_s", np.nan, ())),
        field.array("typical", 0.0, (width,)),
        Expectation(means),
        levels,
        objects,
        steps,
        Seen(slots, _parse_kinds(seen, field.get("seen", dict))),
    )
    if not limits.block_s > 0:
        raise ReferenceBroken(
            f"{where}: limits: block_s is {stored['block_s']!r:.20}; allowed is more than 0"
        )
    excess, categories = (
        _Fields(field.get(name, dict), f"{where}: {name}") for name in ("excess", "categories")
    )
    return WindowLimits(
        limits,
        {name: float(excess.array(name, 0.0, ())) for name in NUMERIC},
        {name: float(categories.array(name, np.inf, ())) for name in CATEGORY_COLUMNS},
    )


def _parse_lengths(stored: dict[str, Any], shape: tuple[int, ...], where: str) -> dict[int, Floats]:
    """Return limits by length in blocks; null means that a signal is not judged."""
    for name in stored:
        if name not in {str(length) for length in LENGTHS}:
            raise ReferenceBroken(f"{where} has {name!r:.20}; allowed are {LENGTHS}")
    return {int(name): _Fields(stored, where).array(name, np.inf, shape) for name in stored}


def _parse_objects(stored: dict[str, Any], columns: Sequence[str], where: str) -> ObjectLevels:
    field = _Fields(stored, where)
    members = len(places(columns))
    limits = _parse_lengths(field.get("limits", dict), (members,), f"{where}: limits")
    typical = _Fields(field.get("typical", dict), f"{where}: typical")
    boxes = {length: float(typical.array(str(length), 0.0, ())) for length in limits}
    for length, count in boxes.items():
        if not count > 0:
            raise ReferenceBroken(f"{where}: typical: {length} is {count:g}; allowed is more than 0")
    return ObjectLevels(float(field.array("exponent", 0.0, ())), boxes, limits)


def _parse_kinds(seen: _Fields, stored: dict[str, Any]) -> tuple[bool, bool, bool]:
    """Return which kinds of days are known; older files say of the weekend alone whether it is."""
    weekend = seen.get("weekend", bool) if "weekend" in stored else None
    working, saturday, sunday = (
        weekend if weekend is not None and name != "working_days" else seen.get(name, bool)
        for name in _KINDS_OF_DAY
    )
    return bool(working), bool(saturday), bool(sunday)


def _parse_step(stored: Any, width: int, where: str) -> StepLimits:
    if not isinstance(stored, dict):
        raise ReferenceBroken(f"{where} holds no map")
    field = _Fields(stored, where)
    inverses = field.get("inverses", list)
    if len(inverses) != len(TOPICS):
        raise ReferenceBroken(f"{where}: {len(inverses)} inverses; needed are {len(TOPICS)}")
    return StepLimits(
        int(field.array("size", np.nan, ())),
        field.array("rise", np.inf, (SLOTS, width)),
        field.array("fall", np.inf, (SLOTS, width)),
        field.array("deviation", np.nan, (SLOTS, width)),
        field.array("topics", np.inf, (SLOTS, len(TOPICS))),
        tuple(_Fields({"inverse": inverse}, where).array("inverse", 0.0, 2) for inverse in inverses),
    )


class _Fields:
    """Reads fields of a map, with errors that name them."""

    def __init__(self, stored: dict[str, Any], where: str) -> None:
        self._stored, self._where = stored, where

    def get(self, name: str, kind: type) -> Any:
        value = self._stored.get(name)
        if not isinstance(value, kind):
            raise ReferenceBroken(f"{self._where}: {name} is {value!r:.40}; needed is a {kind.__name__}")
        return value

    def array(self, name: str, missing: float, shape: tuple[int, ...] | int) -> Floats:
        """Return a field as an array of this shape or number of axes, with ``missing`` for null."""
        if name not in self._stored:
            raise ReferenceBroken(f"{self._where}: {name} is missing")
        try:
            found = np.array(self._stored[name], np.float64)
        except (TypeError, ValueError) as error:
            raise ReferenceBroken(f"{self._where}: {name} is no array of numbers") from error
        fits = found.ndim == shape if isinstance(shape, int) else found.shape == shape
        if not fits:
            raise ReferenceBroken(f"{self._where}: {name} has the shape {found.shape}; needed is {shape}")
        return np.asarray(np.where(np.isnan(found), missing, found), np.float64)


def _dump(values: Floats) -> Any:
    """Return nested lists with four digits, None for what is not finite."""
    if values.ndim > 1:
        return [_dump(part) for part in values]
    return [_rounded(value) for value in values.tolist()]


def _rounded(value: float) -> float | None:
    return float(f"{value:.4g}") if np.isfinite(value) else None
