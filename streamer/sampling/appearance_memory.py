"""Remembers how the samples of each stream look, and says how new a frame is. Pure.

The remembered descriptors are a cover: each is further than a radius from all others, and what was dropped is
within a radius of one of them. New descriptors overwrite the oldest.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from streamer.sampling.appearance import CELLS, COLOUR_CELLS, PADDED_CELLS, Descriptor

#: Distance in levels within which two crops show the same (decision 0102 has the figures).
RADIUS = 10.0
#: Weights of the squared differences in mean brightness, which shadows change, and in colour, whose values
#: are smaller.
MEAN_WEIGHT = 0.2
COLOUR_WEIGHT = 1.5
#: Times the expected noise that is subtracted from a squared distance. A mean of 64 squares exceeds its
#: expectation by the first factor in less than one of a million comparisons, one of 32 squares by the second,
#: and a single square by the third in two of ten thousand.
NOISE_FACTOR = 2.2
COLOUR_NOISE_FACTOR = 3.0
MEAN_NOISE_FACTOR = 14.0
#: Number of descriptors that are remembered per stream, and of streams. The oldest are forgotten first.
REMEMBERED = 512
MAX_STREAMS = 1000
#: Number of values of a descriptor in a row of the memory: brightness, colour, mean, three of noise.
_LIGHT = PADDED_CELLS**2
_COLOUR = 2 * COLOUR_CELLS**2
_VALUES = _LIGHT + _COLOUR + 4


class AppearanceMemory:
    """Remembers the descriptors of one kind of crop of one stream."""

    def __init__(self, capacity: int = REMEMBERED) -> None:
        self._capacity = capacity
        #: float16, to have half the size; grows up to the capacity.
        self._rows = np.zeros((0, _VALUES), np.float16)
        self._count = 0

    def distance(self, found: Descriptor) -> float:
        """Return the distance in levels to the nearest descriptor; infinity if there is none."""
        known = self._rows[: min(self._count, self._capacity)].astype(np.float32)
        if not len(known):
            return math.inf
        light = known[:, :_LIGHT].reshape(-1, PADDED_CELLS, PADDED_CELLS)
        inner = found.light[1:-1, 1:-1]
        squares = np.full(len(known), np.inf)
        # A box of the same object may lie an eighth of its size away.
        for row in range(3):
            for column in range(3):
                difference = light[:, row : row + CELLS, column : column + CELLS] - inner
                difference -= difference.mean((1, 2), keepdims=True)
                np.minimum(squares, np.square(difference).mean((1, 2)), out=squares)
        colour = np.square(known[:, _LIGHT : _LIGHT + _COLOUR] - found.colour.reshape(-1)).mean(1)
        mean, noise, colour_noise, mean_noise = known[:, -4:].T
        squares -= NOISE_FACTOR * (noise + found.noise)
        colour -= COLOUR_NOISE_FACTOR * (colour_noise + found.colour_noise)
        means = np.square(mean - found.mean) - MEAN_NOISE_FACTOR * (mean_noise + found.mean_noise)
        total = np.maximum(0, squares) + MEAN_WEIGHT * np.maximum(0, means)
        total += COLOUR_WEIGHT * np.maximum(0, colour)
        return math.sqrt(float(total.min()))

    def add(self, found: Descriptor) -> None:
        """Remember a descriptor if it is new."""
        if self.distance(found) <= RADIUS:
            return
        if self._count == len(self._rows) < self._capacity:
            more = min(self._capacity, max(16, 2 * self._count)) - self._count
            self._rows = np.concatenate([self._rows, np.zeros((more, _VALUES), np.float16)])
        scalars = np.array([found.mean, found.noise, found.colour_noise, found.mean_noise])
        values = np.concatenate([found.light.reshape(-1), found.colour.reshape(-1), scalars])
        self._rows[self._count % self._capacity] = np.clip(values, -60_000, 60_000)
        self._count += 1

    def state(self) -> bytes:
        """Return the remembered descriptors, oldest first."""
        if self._count <= self._capacity:
            return self._rows[: self._count].tobytes()
        return np.roll(self._rows, -(self._count % self._capacity), axis=0).tobytes()

    def restore(self, state: bytes) -> None:
        """Continue from a state. Raises ValueError or TypeError if it is none."""
        rows: npt.NDArray[np.float16] = np.frombuffer(state, np.float16).reshape(-1, _VALUES)
        if not np.isfinite(rows).all():
            raise ValueError("descriptors hold values that are not finite")
        self._rows = rows[-self._capacity :].copy()
        self._count = len(self._rows)


class AppearanceMemories:
    """Holds the memories of all streams: of objects, and of frames as a whole."""

    def __init__(self) -> None:
        self._streams: OrderedDict[str, tuple[AppearanceMemory, AppearanceMemory]] = OrderedDict()

    def novelty(self, stream: str, objects: Iterable[Descriptor], frames: Iterable[Descriptor]) -> float:
        """Return the distance of the newest of these crops from what is remembered of its kind."""
        of_objects, of_frames = self._of(stream)
        distances = [of_objects.distance(found) for found in objects]
        distances += [of_frames.distance(found) for found in frames]
        return max(distances, default=math.inf)

    def add(self, stream: str, objects: Iterable[Descriptor], frame: Descriptor) -> None:
        """Remember a sample of a stream."""
        of_objects, of_frames = self._of(stream)
        for found in objects:
            of_objects.add(found)
        of_frames.add(frame)

    def _of(self, stream: str) -> tuple[AppearanceMemory, AppearanceMemory]:
        if stream not in self._streams:
            self._streams[stream] = AppearanceMemory(), AppearanceMemory()
            if len(self._streams) > MAX_STREAMS:
                self._streams.popitem(last=False)
        self._streams.move_to_end(stream)
        return self._streams[stream]

    def state(self, now: float, unix_s: float) -> dict[str, Any]:
        """Return what must outlive the process, in types of msgpack."""
        return {name: [memory.state() for memory in both] for name, both in self._streams.items()}

    def restore(self, state: Mapping[str, Any], now: float, unix_s: float) -> None:
        """Continue from a state. Raises TypeError or ValueError if it is none."""
        streams: OrderedDict[str, tuple[AppearanceMemory, AppearanceMemory]] = OrderedDict()
        for name, (of_objects, of_frames) in state.items():
            both = streams[str(name)] = AppearanceMemory(), AppearanceMemory()
            both[0].restore(of_objects)
            both[1].restore(of_frames)
        self._streams = streams
