"""Remembers how the samples of each stream look, and says how new a frame is. Pure.

The remembered crops are a cover: each is further than a radius from all others, and what was dropped is
within a radius of one of them. New crops overwrite the oldest.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from streamer.sampling.appearance import Appearance, Crop
from streamer.sampling.crop_distance import VALUES, frame_distances, object_distances, row_of
from streamer.sampling.scene_noise import CropNoise, SceneNoise

Array = npt.NDArray[np.float32]

#: Distance in levels within which two crops show the same.
RADIUS = 4.5
#: The same for frames as a whole.
FRAME_RADIUS = 7.0
#: The radius grows to this factor times the quantile of the last distances between crops of the ground, at
#: most to the limit, once there are so many.
REST_FACTOR = 1.5
REST_SHARE = 0.95
MAX_RADIUS = 20.0
DISTANCES = 64
LEAST_DISTANCES = 4
MAX_PLACES = 32
#: Number of crops that are remembered per stream, and of streams. The oldest are forgotten first.
REMEMBERED = 512
MAX_STREAMS = 1000
#: Increase this number when the values of a crop change.
CROPS = 2
#: Returns the distances of a crop from known ones, as `crop_distance` has them.
Distances = Callable[[Array, Crop, CropNoise], Array]


class AppearanceMemory:
    """Remembers one kind of crop of one stream."""

    def __init__(self, distances: Distances, capacity: int = REMEMBERED) -> None:
        self._distances = distances
        self._capacity = capacity
        #: float16, to have half the size; grows up to the capacity.
        self._rows = np.zeros((0, VALUES), np.float16)
        self._count = 0

    def distance(self, found: Crop, noise: CropNoise) -> float:
        """Return the distance in levels to the nearest crop; infinity if there is none."""
        known = self._rows[: min(self._count, self._capacity)].astype(np.float32)
        if not len(known):
            return math.inf
        return float(self._distances(known, found, noise).min())

    def add(self, found: Crop, noise: CropNoise, radius: float = RADIUS) -> None:
        """Remember a crop if it is further than ``radius`` from all others."""
        if self.distance(found, noise) <= radius:
            return
        if self._count == len(self._rows) < self._capacity:
            more = min(self._capacity, max(16, 2 * self._count)) - self._count
            self._rows = np.concatenate([self._rows, np.zeros((more, VALUES), np.float16)])
        self._rows[self._count % self._capacity] = np.clip(row_of(found), -60_000, 60_000)
        self._count += 1

    def state(self) -> bytes:
        """Return the remembered crops, oldest first."""
        if self._count <= self._capacity:
            return self._rows[: self._count].tobytes()
        return np.roll(self._rows, -(self._count % self._capacity), axis=0).tobytes()

    def restore(self, state: bytes) -> None:
        """Continue from a state. Raises ValueError or TypeError if it is none."""
        rows: npt.NDArray[np.float16] = np.frombuffer(state, np.float16).reshape(-1, VALUES)
        if not np.isfinite(rows).all():
            raise ValueError("crops hold values that are not finite")
        self._rows = rows[-self._capacity :].copy()
        self._count = len(self._rows)


class DistancesAtRest:
    """Learns by how much crops of the ground differ from frame to frame, at the same place and with no box.

    What is no further from a known object than ground is from ground may be noise.
    """

    def __init__(self) -> None:
        #: The last row of each place and size.
        self._rows: OrderedDict[int, Array] = OrderedDict()
        #: The last distances, as parts of 1 for a camera at rest.
        self.distances: deque[float] = deque(maxlen=DISTANCES)

    def observe(self, shown: Appearance, noise: SceneNoise) -> None:
        """Learn from the next frame."""
        for place, crop in shown.grounds.items():
            if place in self._rows:
                distance = float(object_distances(self._rows[place][None], crop, noise.of(crop))[0])
                self.distances.append(distance * noise.rest())
            self._rows[place] = row_of(crop)
            self._rows.move_to_end(place)
            if len(self._rows) > MAX_PLACES:
                self._rows.popitem(last=False)

    @property
    def radius(self) -> float:
        """The distance in levels within which two objects of this stream are the same."""
        if len(self.distances) < LEAST_DISTANCES:
            return RADIUS
        found = REST_FACTOR * float(np.quantile(self.distances, REST_SHARE))
        return min(MAX_RADIUS, max(RADIUS, found))


class _Stream:
    """Holds what is remembered of one stream: its objects, its frames as a whole, and its noise."""

    def __init__(self) -> None:
        self.objects, self.frames = AppearanceMemory(object_distances), AppearanceMemory(frame_distances)
        self.noise = SceneNoise()
        self.at_rest = DistancesAtRest()


class AppearanceMemories:
    """Holds the memories of all streams."""

    def __init__(self) -> None:
        self._streams: OrderedDict[str, _Stream] = OrderedDict()

    def novelty(self, name: str, shown: Appearance, *, whole: bool = False) -> float:
        """Learn the noise of a stream from its next frame, and return how new the frame is.

        This is the distance in levels of the newest of its objects, or of the frame as a whole if it has none
        or if ``whole``.
        """
        stream = self._of(name)
        stream.noise.observe(shown)
        stream.at_rest.observe(shown, stream.noise)
        share = RADIUS / stream.at_rest.radius
        distances = [share * stream.objects.distance(crop, stream.noise.of(crop)) for crop in shown.objects]
        if whole or not distances:
            distance = stream.frames.distance(shown.frame, stream.noise.of_frame())
            distances.append(RADIUS / FRAME_RADIUS * distance)
        return max(distances)

    def add(self, name: str, shown: Appearance) -> None:
        """Remember a sample of a stream."""
        stream = self._of(name)
        for crop in shown.objects:
            stream.objects.add(crop, stream.noise.of(crop), stream.at_rest.radius)
        stream.frames.add(shown.frame, stream.noise.of_frame(), FRAME_RADIUS)

    def _of(self, name: str) -> _Stream:
        if name not in self._streams:
            self._streams[name] = _Stream()
            if len(self._streams) > MAX_STREAMS:
                self._streams.popitem(last=False)
        self._streams.move_to_end(name)
        return self._streams[name]

    def state(self, now: float, unix_s: float) -> dict[str, Any]:
        """Return what must outlive the process, in types of msgpack."""
        streams = {
            name: [s.objects.state(), s.frames.state(), s.noise.state(), list(s.at_rest.distances)]
            for name, s in self._streams.items()
        }
        return {"crops": CROPS, "streams": streams}

    def restore(self, state: Mapping[str, Any], now: float, unix_s: float) -> None:
        """Continue from a state. Raises TypeError or ValueError if it is none."""
        if state.get("crops") != CROPS:
            raise ValueError("its crops are described in another way")
        streams: OrderedDict[str, _Stream] = OrderedDict()
        for name, (of_objects, of_frames, noise, distances) in state["streams"].items():
            stream = streams[str(name)] = _Stream()
            stream.objects.restore(of_objects)
            stream.frames.restore(of_frames)
            stream.noise.restore(noise)
            stream.at_rest.distances.extend(float(distance) for distance in distances)
        self._streams = streams
