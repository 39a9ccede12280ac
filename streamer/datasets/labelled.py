"""A sample on its way into a data set: its file name there, its part, and the boxes that go along. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from streamer.datasets.sample import Detection, Sample


@dataclass(frozen=True, slots=True)
class Labelled:
    """One picture of a data set."""

    sample: Sample
    #: Name of its file, without folders.
    file_name: str
    #: train, val or test.
    part: str
    detections: tuple[Detection, ...]


def all_labels(samples: Iterable[Sample]) -> list[str]:
    """Return the labels of all models that looked at the samples, in order; equal names are one class."""
    return list(dict.fromkeys(label for sample in samples for label in sample.labels))


def file_stem(sample: Sample) -> str:
    """Return a name that says where a picture comes from, unique within a collection."""
    return f"{sample.stream}_{sample.captured_at[:10]}_{sample.sha256[:20]}"
