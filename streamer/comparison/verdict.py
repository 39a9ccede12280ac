"""Judges from sums of blocks whether two versions detect differently. Pure.

All quantities together err with probability `ALPHA` at most, however often somebody looks: half of it is
shared by the quantities over all classes, half by the classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from streamer.comparison.blocks import Blocks
from streamer.comparison.measured_frame import SUMS, Measured
from streamer.comparison.sequential_test import (
    LEAST_UNITS,
    ConfidenceSequence,
    Floats,
    Series,
    bootstrap_intervals,
    confidence_sequence,
)

ALPHA = 0.05
#: Classes that are told apart, those with most boxes. All classes share the probability of error.
MOST_CLASSES = 30
#: Blocks of a bootstrap; beyond them, streams are joined by their numbers.
_MOST_RESAMPLED = 1500


class Verdict(StrEnum):
    """What is known of the difference."""

    UNDECIDED = "undecided"
    NO_DIFFERENCE = "no_difference"
    DIFFERS = "differs"


@dataclass(frozen=True, slots=True)
class Quantity:
    """Defines a ratio of sums that is 0 if the versions do not differ."""

    name: str
    #: Names in `SUMS` that are added and subtracted, and those of the denominator.
    plus: tuple[str, ...]
    minus: tuple[str, ...]
    below: tuple[str, ...]
    #: A difference within the margin does not matter.
    margin: float
    #: A difference counts if it is certainly larger than this.
    least: float = 0.0
    #: Whether the verdict depends on it.
    judged: bool = True


QUANTITIES = (
    Quantity("boxes", ("second",), ("first",), ("first",), margin=0.05),
    Quantity("disagreement", ("scores",), ("agreed",), ("scores",), margin=0.1, least=0.1),
    Quantity("score", ("score_change",), (), ("both",), margin=0.03),
    Quantity("jitter", ("second_jitter",), ("first_jitter",), ("followed",), margin=0.02),
    # Shadow runs wait for an idle device, so even the same model takes another time there.
    Quantity("run_ms", ("second_ms",), ("first_ms",), ("first_ms",), margin=0.1, judged=False),
)
_JUDGED = sum(quantity.judged for quantity in QUANTITIES)
#: Relative difference of the boxes of one class.
CLASS_MARGIN = 0.1


@dataclass(frozen=True, slots=True)
class Finding:
    """Holds what is known of one quantity, or of the boxes of one class."""

    name: str
    #: Mean of each version, where that is meaningful, and the difference; None without data.
    first: float | None
    second: float | None
    difference: float | None
    #: 95 % interval by bootstrap over blocks, for one look.
    interval: tuple[float, float] | None
    #: Interval that holds at all looks and for all quantities together.
    always_valid: ConfidenceSequence
    margin: float
    verdict: Verdict
    judged: bool


@dataclass(frozen=True, slots=True)
class Judgement:
    """Holds the verdict on two versions, and what it is based on."""

    verdict: Verdict
    quantities: tuple[Finding, ...]
    classes: tuple[Finding, ...]
    #: Sums over all finished blocks.
    total: Measured
    #: Numbers of blocks, of streams, of windows with frames, and of units of the sequential test.
    blocks: int = 0
    streams: int = 0
    windows: int = 0
    units: int = 0
    #: Number of streams whose boxes differ in the direction of the whole.
    same_direction: int = 0
    #: Windows in the order of time: number of the first window, and sums.
    history: tuple[tuple[int, Measured], ...] = field(default=())


def judge(by_stream: Blocks, by_time: Blocks, labels: int) -> Judgement:
    """Return the verdict on finished blocks.

    ``by_stream`` are blocks of streams, ``by_time`` those of all streams together (their stream is 0), both
    of the same frames. ``labels`` is the number of classes that both versions have.
    """
    history = tuple((window, block) for (window, _), block in sorted(by_time.blocks.items()))
    total = Measured()
    for _, block in history:
        total.add(block)
    if not history:
        nothing = tuple(_without_data(quantity) for quantity in QUANTITIES)
        return Judgement(Verdict.UNDECIDED, nothing, (), total)
    windows = np.array([block.sums for _, block in history])
    resampled = _resampled_blocks(by_stream)
    sums = np.array([block.sums for block in resampled])
    streams = _short_streams(by_stream, len(history), by_time.length)
    stream_sums = np.array([block.sums for block in streams]).reshape(-1, len(SUMS))
    intervals = bootstrap_intervals(
        np.stack([_above(sums, each) for each in QUANTITIES], axis=1),
        np.stack([_column(sums, each.below) for each in QUANTITIES], axis=1),
    )
    quantities = tuple(
        _finding(quantity, windows, stream_sums, total, interval)
        for quantity, interval in zip(QUANTITIES, intervals, strict=True)
    )
    classes = _classes([block for _, block in history], streams, resampled, total, labels)
    boxes = quantities[0].difference or 0.0
    return Judgement(
        _together([*(each for each in quantities if each.judged), *classes], len(quantities)),
        quantities,
        classes,
        total,
        blocks=len(by_stream.blocks),
        streams=len({stream for _, stream in by_stream.blocks}),
        windows=len(history),
        units=_series(windows, stream_sums, QUANTITIES[0]).units,
        same_direction=sum(boxes * difference > 0 for difference in _stream_differences(by_stream)),
        history=history,
    )


def _together(findings: Sequence[Finding], quantities: int) -> Verdict:
    """Return the verdict of all findings: quantities first, then classes."""
    if any(finding.verdict is Verdict.DIFFERS for finding in findings):
        return Verdict.DIFFERS
    # Without neighbouring frames nothing is known of jitter, and classes may be rare: neither prevents a
    # verdict.
    needed = [each for each in findings[:quantities] if each.name in ("boxes", "disagreement", "score")]
    if all(finding.verdict is Verdict.NO_DIFFERENCE for finding in needed):
        return Verdict.NO_DIFFERENCE
    return Verdict.UNDECIDED


def _finding(
    quantity: Quantity,
    windows: Floats,
    streams: Floats,
    total: Measured,
    interval: tuple[float, float] | None,
) -> Finding:
    series = _series(windows, streams, quantity)
    sequence = confidence_sequence(series, ALPHA / 2 / _JUDGED)
    first, second = _means(quantity.name, dict(zip(SUMS, total.sums, strict=True)))
    return Finding(
        quantity.name,
        first,
        second,
        _finite(series.estimate),
        interval,
        sequence,
        quantity.margin,
        _verdict(sequence, quantity.margin, quantity.least),
        quantity.judged,
    )


def _classes(
    windows: list[Measured], streams: list[Measured], blocks: list[Measured], total: Measured, labels: int
) -> tuple[Finding, ...]:
    """Return the findings of the classes with most boxes; none if there is only one class."""
    if labels < 2 or not total.by_class:
        return ()
    names = sorted(total.by_class, key=lambda name: (-sum(total.by_class[name][:2]), name))[:MOST_CLASSES]

    def counts(measured: list[Measured], name: str) -> Floats:
        rows = [each.by_class[name][:2] if name in each.by_class else [0.0, 0.0] for each in measured]
        return np.array(rows).reshape(-1, 2)

    resampled = [counts(blocks, name) for name in names]
    intervals = bootstrap_intervals(
        np.stack([each[:, 1] - each[:, 0] for each in resampled], axis=1),
        np.stack([each[:, 0] for each in resampled], axis=1),
    )
    found: list[Finding] = []
    for name, interval in zip(names, intervals, strict=True):
        by_window, by_stream = counts(windows, name), counts(streams, name)
        series = Series(*_differences(by_window), *_differences(by_stream))
        sequence = confidence_sequence(series, ALPHA / 2 / labels)
        first, second, _ = total.by_class[name]
        verdict = _verdict(sequence, CLASS_MARGIN, 0.0)
        difference = _finite(series.estimate)
        found.append(
            Finding(name, first, second, difference, interval, sequence, CLASS_MARGIN, verdict, judged=True)
        )
    return tuple(found)


def _differences(counts: Floats) -> tuple[Floats, Floats]:
    return counts[:, 1] - counts[:, 0], counts[:, 0]


def _verdict(sequence: ConfidenceSequence, margin: float, least: float) -> Verdict:
    if sequence.within(margin):
        return Verdict.NO_DIFFERENCE
    return Verdict.DIFFERS if sequence.excludes(least) else Verdict.UNDECIDED


def _series(windows: Floats, streams: Floats, quantity: Quantity) -> Series:
    known = _column(windows, quantity.below) > 0
    # Windows in which nobody found anything say nothing about time, as nights without frames.
    known |= _above(windows, quantity) != 0
    windows = windows[known]
    return Series(
        _above(windows, quantity),
        _column(windows, quantity.below),
        _above(streams, quantity),
        _column(streams, quantity.below),
    )


def _above(sums: Floats, quantity: Quantity) -> Floats:
    return _column(sums, quantity.plus) - _column(sums, quantity.minus)


def _column(sums: Floats, names: tuple[str, ...]) -> Floats:
    columns: Floats = sums[:, [SUMS.index(name) for name in names]].sum(axis=1)
    return columns


def _means(name: str, total: dict[str, float]) -> tuple[float | None, float | None]:
    """Return what both versions have on average."""
    per = {
        "boxes": ("first", "second", "frames"),
        "jitter": ("first_jitter", "second_jitter", "followed"),
        "run_ms": ("first_ms", "second_ms", "timed"),
    }
    if name not in per or not total[per[name][2]]:
        return None, None
    first, second, below = per[name]
    return total[first] / total[below], total[second] / total[below]


def _resampled_blocks(by_stream: Blocks) -> list[Measured]:
    """Return blocks for the bootstrap, with streams joined where there are too many."""
    count = len(by_stream.blocks)
    if count <= _MOST_RESAMPLED:
        return list(by_stream.blocks.values())
    windows = len({window for window, _ in by_stream.blocks})
    groups = max(1, _MOST_RESAMPLED // windows)
    joined: dict[tuple[int, int], Measured] = {}
    for (window, stream), block in by_stream.blocks.items():
        joined.setdefault((window, stream % groups), Measured()).add(block)
    return list(joined.values())


def _short_streams(by_stream: Blocks, windows: int, length: int) -> list[Measured]:
    """Return the sums of streams if most frames are of streams that last less than half of the windows."""
    streams: dict[int, Measured] = {}
    lives: dict[int, int] = {}
    for (_, stream), block in by_stream.blocks.items():
        streams.setdefault(stream, Measured()).add(block)
        lives[stream] = lives.get(stream, 0) + 1
    half = windows * length / 2
    short = sum(each.sums[0] for stream, each in streams.items() if lives[stream] * by_stream.length < half)
    return list(streams.values()) if 2 * short > sum(each.sums[0] for each in streams.values()) else []


def _stream_differences(by_stream: Blocks) -> list[float]:
    first, second = SUMS.index("first"), SUMS.index("second")
    streams: dict[int, float] = {}
    for (_, stream), block in by_stream.blocks.items():
        streams[stream] = streams.get(stream, 0.0) + block.sums[second] - block.sums[first]
    return list(streams.values())


def _without_data(quantity: Quantity) -> Finding:
    nothing = ConfidenceSequence(None, None)
    verdict = Verdict.UNDECIDED
    return Finding(
        quantity.name, None, None, None, None, nothing, quantity.margin, verdict, judged=quantity.judged
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


__all__ = ["LEAST_UNITS", "Finding", "Judgement", "Verdict", "judge"]
