"""What every source yields, and the wrappers that pace and thin it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from streamer.client.pixels import Pixels, decode

#: A source that falls behind by more than this goes on from where it is instead of skipping for ever.
SLIP_S = 0.5


@dataclass(slots=True, eq=False)
class Captured:
    """One picture of a source."""

    #: Position in the source, from 0; goes on when the source begins again.
    number: int
    #: Capture time in seconds since the source began; media time for files.
    time_s: float
    #: Seconds until the next picture, as far as the source knows.
    duration_s: float
    #: BGR pixels, upright, or an encoded picture as it was found.
    picture: Pixels | bytes
    name: str = ""
    #: Why this one is not to be sent; empty: it is.
    skip: str = ""
    _pixels: Pixels | None = None

    def pixels(self) -> Pixels:
        """Return BGR pixels, decoded once. Raises BadInput."""
        if self._pixels is None:
            self._pixels = decode(self.picture) if isinstance(self.picture, bytes) else self.picture
        return self._pixels


class Source(Protocol):
    """Where pictures come from."""

    #: Whether pictures pass by themselves; else the reader sets the pace.
    live: bool

    @property
    def shown(self) -> str:
        """Name for people, without credentials."""

    @property
    def total(self) -> int | None:
        """Number of pictures, when known."""

    def frames(self, stop: threading.Event) -> Iterator[Captured]:
        """Yield pictures until the end or ``stop``. Raises SourceFailed."""


def paced(
    frames: Iterator[Captured], stop: threading.Event, clock: Callable[[], float] = time.monotonic
) -> Iterator[Captured]:
    """Yield each picture when its time has come; what comes too late is marked ``late``, not queued."""
    begun: float | None = None
    lag_s = 0.0
    for frame in frames:
        if begun is None:
            begun = clock() - frame.time_s
        before_s, lag_s = lag_s, clock() - begun - frame.time_s
        if lag_s < 0:
            if stop.wait(-lag_s):
                return
        elif lag_s > SLIP_S:
            begun, lag_s = clock() - frame.time_s, 0.0
        # While the lag does not shrink, leaving frames out gains nothing.
        elif lag_s > frame.duration_s and not 0 < before_s <= lag_s:
            frame.skip = "late"
        yield frame


def thinned(frames: Iterator[Captured], fps: float) -> Iterator[Captured]:
    """Mark pictures beyond ``fps`` a second of source time as ``fps``; the rate is kept on average."""
    next_s = float("-inf")
    for frame in frames:
        if frame.time_s < next_s - 1e-6:
            frame.skip = frame.skip or "fps"
        else:
            next_s = max(next_s + 1 / fps, frame.time_s)
        yield frame
