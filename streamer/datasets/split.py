"""Divides samples into train, val and test by stream and hour. Pure.

Never by frame: neighbours in time look alike, and a model would be tested on what it has learnt.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from streamer.datasets.errors import BadRequest

PARTS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Split:
    """Shares of the parts; they add up to 1."""

    shares: tuple[float, float, float]

    @classmethod
    def parse(cls, text: str) -> Split:
        """Read ``80,10,10``. Raises BadRequest naming what was found and what is allowed."""
        try:
            numbers = [float(part) for part in text.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) != 3 or not all(0 <= number <= 100 for number in numbers) or sum(numbers) <= 0:
            raise BadRequest(
                f"--split is {text!r}; it is three shares of train, val and test, such as 80,10,10"
            )
        train, val, test = (number / sum(numbers) for number in numbers)
        return cls((train, val, test))

    def part_of(self, stream: str, hour: str) -> str:
        """Return the part of all samples of a stream in one hour; the same in every export."""
        digest = hashlib.sha256(f"{stream}\n{hour}".encode()).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        train, val, _ = self.shares
        if place < train:
            return "train"
        return "val" if place < train + val else "test"
