"""Counts samples, and splits them into training and validation.

Samples are divided by stream and hour, never by frame: consecutive frames look alike, so a model would be
tested on images that it was trained on.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from streamer.core.terminal import Table
from streamer.datasets.sample import BadRequest, Sample

SUBSETS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Split:
    """Holds the shares of train, val and test, which add up to 1, and assigns samples to the subsets."""

    shares: tuple[float, float, float]

    @classmethod
    def parse(cls, text: str) -> Split:
        """Parse ``80,10,10``. Raises BadRequest naming what was found and what is allowed."""
        try:
            numbers = [float(number) for number in text.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) != 3 or not all(0 <= number <= 100 for number in numbers) or sum(numbers) <= 0:
            raise BadRequest(
                f"--split is {text!r}; expected three shares for train, val and test, such as 80,10,10"
            )
        train, val, test = (number / sum(numbers) for number in numbers)
        return cls((train, val, test))

    def subset_of(self, stream: str, hour: str, *, may_be_test: bool = True) -> str:
        """Return the subset of all samples of a stream in one hour; it is the same in every export.

        With ``may_be_test`` off, the hours of test are divided between train and val, if those have a share.
        """
        digest = hashlib.sha256(f"{stream}\n{hour}".encode()).digest()
        position = int.from_bytes(digest[:8], "big") / 2**64
        train, val, test = self.shares
        if not may_be_test and position >= train + val > 0:
            position = (position - train - val) / test * (train + val)
        if position < train:
            return "train"
        return "val" if position < train + val else "test"


#: At most this many rows of each table are shown.
_SHOWN = 15


@dataclass(slots=True)
class Weights:
    """Sums up the weights ``w = 1/p`` with which random samples estimate sums over all candidates."""

    samples: int = 0
    #: Sum of the weights: the number of candidates for which the samples stand.
    total: float = 0.0
    #: Sum of their squares.
    squares: float = 0.0

    def add(self, probability: float) -> None:
        """Count one sample."""
        self.samples += 1
        self.total += 1 / probability
        self.squares += 1 / probability**2

    @property
    def effective(self) -> float:
        """Number of samples of equal weight with the same variance (Kish): ``(sum w)^2 / sum w^2``."""
        return self.total**2 / self.squares if self.squares else 0.0

    def to_dict(self) -> dict[str, float]:
        """Return the sums as plain JSON types."""
        return {
            "samples": self.samples,
            "stand_for": round(self.total, 3),
            "effective": round(self.effective, 3),
        }


@dataclass(slots=True)
class Statistics:
    """Holds the counts of a collection, which :func:`count` fills."""

    samples: int = 0
    size_bytes: int = 0
    first: str = ""
    last: str = ""
    reasons: Counter[str] = field(default_factory=Counter)
    streams: Counter[str] = field(default_factory=Counter)
    days: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    #: Random samples by stream.
    random: dict[str, Weights] = field(default_factory=dict)
    #: Number of boxes with a score at or above the threshold, by label.
    labels: Counter[str] = field(default_factory=Counter)

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as plain JSON types."""
        return {
            "samples": self.samples,
            "bytes": self.size_bytes,
            "first": self.first,
            "last": self.last,
            **{name: dict(getattr(self, name).most_common()) for name in _TABLES},
            "random": {stream: weights.to_dict() for stream, weights in sorted(self.random.items())},
        }

    def to_text(self) -> str:
        """Return the counts as tables of text."""
        lines = [self._total()]
        for table in self.tables()[1:]:
            lines += ["", table.title]
            lines += [f"  {'  '.join(f'{cell:>7}' for cell in row[:-1])}  {row[-1]}" for row in table.rows]
            lines += [f"  {table.note}"] if table.note else []
        return "\n".join(lines)

    def tables(self) -> list[Table]:
        """Return the counts as tables; the first has the total as its title, and no rows."""
        made = [Table(self._total(), (), ())]
        for name, title in _TABLES.items():
            counts: Counter[str] = getattr(self, name)
            rows = tuple((str(number), key) for key, number in counts.most_common(_SHOWN))
            more = len(counts) - _SHOWN
            made.append(
                Table(
                    title, ("COUNT", ""), rows, frozenset({"COUNT"}), f"and {more} more" if more > 0 else ""
                )
            )
        if self.random:
            made.append(self._random_table())
        return made

    def _random_table(self) -> Table:
        found = sorted(self.random.items(), key=lambda item: -item[1].samples)
        rows = tuple(
            (str(weights.samples), f"{weights.total:.0f}", f"{weights.effective:.1f}", stream)
            for stream, weights in found[:_SHOWN]
        )
        more = len(found) - _SHOWN
        return Table(
            "random samples by stream: number, frames that they stand for, effective number",
            ("COUNT", "STAND FOR", "EFFECTIVE", ""),
            rows,
            frozenset({"COUNT", "STAND FOR", "EFFECTIVE"}),
            f"and {more} more" if more > 0 else "",
        )

    def _total(self) -> str:
        return f"{self.samples} samples, {self.size_bytes / 1e6:.1f} MB, {self.first} to {self.last}"


_TABLES = {
    "reasons": "by reason (a sample may have several)",
    "streams": "by stream",
    "days": "by day",
    "models": "by model",
    "labels": "boxes by label",
}


def count(samples: Iterable[Sample]) -> Statistics:
    """Count samples."""
    result = Statistics()
    for sample in samples:
        result.samples += 1
        result.size_bytes += sample.size_bytes
        result.first = min(result.first or sample.captured_at, sample.captured_at)
        result.last = max(result.last, sample.captured_at)
        result.reasons.update(sample.reasons)
        result.streams[sample.stream] += 1
        result.days[sample.captured_at[:10]] += 1
        result.models[sample.model] += 1
        if sample.probability:
            result.random.setdefault(sample.stream, Weights()).add(sample.probability)
        result.labels.update(d.label for d in sample.detections if not d.below_threshold)
    return result
