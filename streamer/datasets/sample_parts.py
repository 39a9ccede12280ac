"""Divides samples into train, val and test, as in every export before.

Test is a random selection of random samples, which estimates how good a model is without bias. Samples that
were chosen because they are hard are for training.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from streamer.core.durable import write_durably
from streamer.datasets.labelled_set import read_parts
from streamer.datasets.near_duplicates import clusters, fingerprint, near_pairs
from streamer.datasets.parts import assign, empty_parts
from streamer.datasets.sample import CannotWrite, Sample
from streamer.datasets.statistics import Split
from streamer.datasets.upright import upright_pixels

#: Reason of samples that were drawn independently of their content.
RANDOM = "random"


class PartsFile:
    """A "parts.json" that says in which part each sample is; the same format as in a labelled set."""

    def __init__(self, path: Path) -> None:
        """Read the file, if there is one. Raises BadSet."""
        self._path = path
        self.parts: Mapping[str, str] = read_parts(path)

    def add(self, parts: Mapping[str, str]) -> None:
        """Write the parts of more samples. Raises CannotWrite."""
        wanted = {**parts, **self.parts}
        if wanted == self.parts:
            return
        data = (json.dumps(dict(sorted(wanted.items())), indent=1) + "\n").encode()
        try:
            write_durably(self._path, data, self._path.with_name(f".{self._path.name}.partial"))
        except OSError as error:
            raise CannotWrite(f"{self._path}: {error.strerror or error}") from error
        self.parts = wanted


@dataclass(slots=True)
class SampleParts:
    """The part of each sample of an export, by sample id; a sample without a part is left out."""

    parts: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def assign_samples(
    samples: Sequence[Sample],
    read: Callable[[Sample], bytes],
    split: Split,
    kept: PartsFile | None,
    on_progress: Callable[[int], None] = lambda done: None,
) -> SampleParts:
    """Return the part of each sample; ``read`` returns its image file.

    Samples in ``kept`` stay in their part. A cluster of near-duplicates has the part of the stream and hour
    of its first sample, and is in test only if one of its samples is random; the others of it are left out.
    Raises DamagedSample or CannotRead.
    """
    by_id = {sample.sha256: sample for sample in samples}
    ids = sorted(by_id, key=lambda name: (by_id[name].captured_at, name))
    prints = []
    for done, name in enumerate(ids):
        on_progress(done)
        sample = by_id[name]
        boxes = [d.box for d in sample.detections if not d.below_threshold]
        pixels = upright_pixels(read(sample), sample.key, sample.rotation)
        prints.append(fingerprint(pixels, np.array(boxes, np.float32).reshape(-1, 4)))
    pairs = list(near_pairs(prints))
    only_test = split.shares[2] == 1

    def is_random(name: str) -> bool:
        return RANDOM in by_id[name].reasons

    def choose(names: Sequence[str]) -> str:
        first = by_id[names[0]]
        may_be_test = only_test or any(map(is_random, names))
        return split.subset_of(first.stream, first.hour, may_be_test=may_be_test)

    known = {name: part for name, part in (kept.parts if kept else {}).items() if name in by_id}
    assignment = assign(ids, pairs, clusters(len(ids), pairs), known, choose)
    result = SampleParts(assignment.parts)
    if only_test:
        hard = sum(not is_random(name) for name in ids)
        if hard:
            result.notes.append(f"{hard} samples of test were chosen because they are hard (--reason random)")
    else:
        beside = [
            n for n, part in result.parts.items() if part == "test" and not is_random(n) and n not in known
        ]
        for name in beside:
            del result.parts[name]
        if beside:
            result.notes.append(
                f"{len(beside)} samples left out: not random, and near-duplicates of samples in test"
            )
    if assignment.left_out:
        result.notes.append(
            f"{len(assignment.left_out)} samples left out: near-duplicates of samples in several parts"
        )
    result.notes += _warnings(samples, result, split, is_random)
    return result


def _warnings(
    samples: Sequence[Sample], result: SampleParts, split: Split, is_random: Callable[[str], bool]
) -> list[str]:
    """Return a warning for each empty part that has a share, with the likely reason."""
    counts = Counter(result.parts.values())
    hours = {(sample.stream, sample.hour) for sample in samples}
    notes = []
    for note in empty_parts(counts):
        part = note.partition(" ")[0]
        if not split.shares[("train", "val", "test").index(part)]:
            continue
        why = f"the samples are of {len(hours)} hours of streams, and an hour is in one part"
        if part == "test" and not any(is_random(sample.sha256) for sample in samples):
            why = "no sample is random, and test has only random ones"
        notes.append(f"{note} ({why})")
    return notes
