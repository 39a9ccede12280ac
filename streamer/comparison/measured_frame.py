"""Measures how the boxes of two versions on one frame agree. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from inference.core.detections import Boxes
from inference.core.overlap import match
from streamer.comparison.pair import ComparedPair, VersionResult

#: IoU from which two boxes of one class are the same object: of the two versions, and of two neighbouring
#: frames.
MATCH_IOU, FOLLOW_IOU = 0.5, 0.3
#: Boxes of each version that are compared, best first. Matching 50 boxes takes 0.3 ms.
MOST_BOXES = 50
#: Frames of a stream further apart than this are no neighbours.
MOST_GAP_S = 0.5

#: Sums over frames, in this order. `first` is the version with the lower number, `second` the other one.
SUMS = (
    "frames",
    "first",  # boxes of classes that both versions have
    "second",
    "both",  # boxes of each version that match one of the other
    "agreed",  # IoU (p + q) over matched boxes with scores p and q
    "scores",  # p + q over all boxes
    "score_change",  # q - p over matched boxes
    "followed",  # frames in which both versions follow boxes from the frame before
    "first_jitter",  # mean of 1 - IoU over followed boxes
    "second_jitter",
    "timed",  # frames in runs of equal batch size
    "first_ms",
    "second_ms",
    "first_foreign",  # boxes of classes that the other version does not have
    "second_foreign",
)
#: Sums by class: boxes of each version, and those that match.
CLASS_SUMS = 3


@dataclass(slots=True)
class Measured:
    """Holds the sums of one frame or of many, in the order of `SUMS`, and by class."""

    sums: list[float] = field(default_factory=lambda: [0.0] * len(SUMS))
    by_class: dict[str, list[float]] = field(default_factory=dict)

    def add(self, other: Measured) -> None:
        """Add the sums of another one."""
        self.sums = [mine + theirs for mine, theirs in zip(self.sums, other.sums, strict=True)]
        for label, counts in other.by_class.items():
            mine = self.by_class.setdefault(label, [0.0] * CLASS_SUMS)
            self.by_class[label] = [a + b for a, b in zip(mine, counts, strict=True)]


@dataclass(slots=True)
class Previous:
    """Holds what both versions found on an earlier frame of a stream."""

    seq: int
    at: float
    first: Boxes
    second: Boxes


def in_order(pair: ComparedPair) -> tuple[VersionResult, VersionResult]:
    """Return both results, that of the version with the lower number first."""
    one, other = pair.served, pair.shadow
    return (one, other) if one.version <= other.version else (other, one)


def measure(pair: ComparedPair, previous: Previous | None) -> tuple[Measured, float, Previous]:
    """Return the sums of a frame, its disagreement in [0, 1], and what the next frame needs.

    Classes are compared by their names.
    """
    first, second = in_order(pair)
    ids = _second_ids(first.labels, second.labels)
    known = [index for index, label in enumerate(first.labels) if label in second.labels]
    mine, foreign_first = _of_classes(first.boxes, np.isin(first.boxes[:, 5], known))
    theirs, foreign_second = _of_classes(second.boxes, np.isin(second.boxes[:, 5], list(ids)))
    if len(theirs) and any(key != value for key, value in ids.items()):
        theirs = theirs.copy()
        theirs[:, 5] = [ids[int(number)] for number in theirs[:, 5]]
    matches = match(mine, theirs, MATCH_IOU)
    agreed = sum(iou * float(mine[row, 4] + theirs[column, 4]) for row, column, iou in matches)
    scores = float(mine[:, 4].sum() + theirs[:, 4].sum())
    found = dict.fromkeys(SUMS, 0.0) | {
        "frames": 1,
        "first": len(mine),
        "second": len(theirs),
        "both": len(matches),
        "agreed": agreed,
        "scores": scores,
        "score_change": sum(float(theirs[column, 4] - mine[row, 4]) for row, column, _ in matches),
        "first_foreign": foreign_first,
        "second_foreign": foreign_second,
    }
    if previous is not None and pair.consecutive and _follows(pair, previous):
        jitters = [_jitter(previous.first, mine), _jitter(previous.second, theirs)]
        if jitters[0] is not None and jitters[1] is not None:
            found |= {"followed": 1, "first_jitter": jitters[0], "second_jitter": jitters[1]}
    if first.batch_size == second.batch_size:
        found |= {"timed": 1, "first_ms": first.inference_ms, "second_ms": second.inference_ms}
    measured = Measured([found[name] for name in SUMS], _by_class(first.labels, mine, theirs, matches))
    disagreement = min(1.0, max(0.0, 1 - agreed / scores)) if scores else 0.0
    return measured, disagreement, Previous(pair.seq, pair.at, mine, theirs)


def _follows(pair: ComparedPair, previous: Previous) -> bool:
    return pair.seq == previous.seq + 1 and 0 <= pair.at - previous.at <= MOST_GAP_S


@lru_cache(maxsize=8)
def _second_ids(first: tuple[str, ...], second: tuple[str, ...]) -> Mapping[int, int]:
    """Return the first version's class ids by those of the second, for labels that both have."""
    numbers = {label: index for index, label in enumerate(first)}
    return {index: numbers[label] for index, label in enumerate(second) if label in numbers}


def _of_classes(boxes: Boxes, chosen: np.ndarray) -> tuple[Boxes, int]:
    return boxes[chosen][:MOST_BOXES], int((~chosen).sum())


def _jitter(before: Boxes, after: Boxes) -> float | None:
    """Return the mean of 1 - IoU over boxes that are in both frames; None if there are none."""
    followed = match(before, after, FOLLOW_IOU)
    return 1 - sum(iou for _, _, iou in followed) / len(followed) if followed else None


def _by_class(
    labels: Sequence[str], first: Boxes, second: Boxes, matches: list[tuple[int, int, float]]
) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    numbers = [first[:, 5], second[:, 5], first[[row for row, _, _ in matches], 5]]
    for column, ids in enumerate(numbers):
        for number in ids.astype(int).tolist():
            found.setdefault(labels[number], [0.0] * CLASS_SUMS)[column] += 1
    return found
