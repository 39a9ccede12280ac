"""Divides samples into train, val and test by stream and hour. Pure.

Never by frame: consecutive frames look alike, so a model would be tested on images that it was trained on.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from streamer.datasets.errors import BadRequest

SUBSETS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Split:
    """Shares of train, val and test; they add up to 1."""

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

    def subset_of(self, stream: str, hour: str) -> str:
        """Return the subset of all samples of a stream in one hour; it is the same in every export."""
        digest = hashlib.sha256(f"{stream}\n{hour}".encode()).digest()
        position = int.from_bytes(digest[:8], "big") / 2**64
        train, val, _ = self.shares
        if position < train:
            return "train"
        return "val" if position < train + val else "test"
