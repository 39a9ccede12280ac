"""Adds up frames by blocks of (stream, window of time), in bounded space. Pure.

A window has five minutes. When there are too many blocks, neighbouring windows of each stream are joined.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from streamer.comparison.measured_frame import CLASS_SUMS, SUMS, Measured

WINDOW_S = 300.0
#: Streams are told apart by so many values of their hash. Streams that share one count as one.
STREAMS = 1 << 11
MOST_BLOCKS = 4096


class MalformedBlocks(ValueError):
    """The document does not hold blocks."""


@dataclass(slots=True)
class Blocks:
    """Holds the sums of blocks by the number of the first window and the number of the stream."""

    #: Number of windows of a block, a power of two.
    length: int = 1
    blocks: dict[tuple[int, int], Measured] = field(default_factory=dict)

    def add(self, window: int, stream: int, measured: Measured) -> None:
        """Add sums to the block of a window and stream."""
        key = (window - window % self.length, stream)
        block = self.blocks.get(key)
        if block is None:
            block = self.blocks[key] = Measured()
        block.add(measured)
        while len(self.blocks) > MOST_BLOCKS:
            self.lengthen(self.length * 2)

    def merge(self, other: Blocks) -> None:
        """Add all blocks of another process."""
        self.lengthen(max(self.length, other.length))
        for (window, stream), measured in other.blocks.items():
            self.add(window, stream, measured)

    def lengthen(self, length: int) -> None:
        """Join windows to blocks of at least ``length`` windows."""
        if length <= self.length:
            return
        old, self.blocks, self.length = self.blocks, {}, length
        for (window, stream), measured in sorted(old.items()):
            self.blocks.setdefault((window - window % length, stream), Measured()).add(measured)

    def before(self, window: int) -> Blocks:
        """Return the blocks that are over when ``window`` begins."""
        ended = {key: block for key, block in self.blocks.items() if key[0] + self.length <= window}
        return Blocks(self.length, ended)

    def to_document(self) -> dict[str, Any]:
        """Return the blocks as JSON values."""
        rows = [[*key, block.sums, dict(block.by_class)] for key, block in self.blocks.items()]
        return {"length": self.length, "blocks": rows}

    @classmethod
    def from_document(cls, document: Any) -> Blocks:
        """Return the blocks in JSON values. Raises MalformedBlocks if these are none."""
        try:
            length = document["length"]
            found = cls(length if length >= 1 and length & (length - 1) == 0 else _refuse("length"))
            for window, stream, sums, by_class in document["blocks"]:
                counts = {str(label): _numbers(values, CLASS_SUMS) for label, values in by_class.items()}
                found.blocks[int(window), int(stream)] = Measured(_numbers(sums, len(SUMS)), counts)
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise MalformedBlocks(f"no blocks: {error!r:.200}") from error
        return found


def _numbers(values: Iterable[Any], count: int) -> list[float]:
    found = [float(value) for value in values]
    return found if len(found) == count else _refuse(f"{len(found)} sums")


def _refuse(what: str) -> Any:
    raise ValueError(what)
