"""Counts the boxes of answered frames and images, by version and label; `metrics` holds the counters.

Labels come from model files. So that their number stays bounded, classes beyond the first `MAX_LABELS` of a
model are counted together.
"""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from inference.core.metric_value import Counter, Histogram

if TYPE_CHECKING:  # the supervisor imports this module and must not load NumPy
    from inference.core.detections import Boxes

#: Number of classes of a model with a series of their own, the first ones by class id.
MAX_LABELS = 100
#: Label of the boxes of all other classes.
OTHER = "other"
#: Labels are cut after this number of characters; a manifest allows twice as many, other models any number.
_MAX_CHARACTERS = 100
_BUCKETS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500)


class BoxMetrics:
    """Counts boxes as clients get them: after their thresholds and filters."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._boxes = Counter(
            "object_detection_boxes",
            "Boxes of answered frames, by label of the class; `other`: classes beyond the first 100.",
            ["version", "label"],
            registry=registry,
        )
        self._per_frame = Histogram(
            "object_detection_boxes_per_frame",
            "Number of boxes of an answered frame.",
            ["version"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self._by_version: dict[str, _Series] = {}

    def preset(self, version: str) -> None:
        """Create the series of a version whose labels need no model."""
        self._per_frame.labels(version)

    def count(self, version: str, labels: Sequence[str], boxes: Boxes) -> None:
        """Count the boxes of one answered frame; ``labels`` are those of the model that has found them."""
        series = self._by_version.get(version)
        if series is None or (series.labels is not labels and series.labels != labels):
            # A restarted inference process may serve another file.
            series = _Series(version, labels, self._boxes, self._per_frame.labels(version))
            self._by_version[version] = series
        series.count(boxes)


class _Series:
    """Holds the series of one version, because looking them up takes longer than counting."""

    def __init__(self, version: str, labels: Sequence[str], boxes: Counter, per_frame: Histogram) -> None:
        self.labels = labels
        self._version = version
        self._boxes = boxes
        self._per_frame = per_frame
        #: By class id; a class has none before its first box.
        self._by_class: dict[int, Counter] = {}

    def count(self, boxes: Boxes) -> None:
        self._per_frame.observe(len(boxes))
        if not len(boxes):
            return
        for number, count in Counts(boxes[:, 5].tolist()).items():
            series = self._by_class.get(number)
            if series is None:
                label = label_of(int(number), self.labels)
                series = self._by_class[number] = self._boxes.labels(self._version, label)
            series.inc(count)


def label_of(number: int, labels: Sequence[str]) -> str:
    """Return the label under which the boxes of a class id are counted."""
    if not 0 <= number < min(len(labels), MAX_LABELS):
        return OTHER
    return "".join(each if each.isprintable() else "?" for each in labels[number][:_MAX_CHARACTERS])
