"""Defines the frames that a source yields, and generators that pace them or limit their rate."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from streamer.client.encoder import Pixels, decode

#: When a source is late by more than this, its clock restarts at the current frame. Otherwise the
#: source would skip frames for ever.
RESYNC_AFTER_S = 0.5
#: A frame of a live stream is old if it is later by more than this than the promptest frames before it.
BACKLOG_S = 1.0
#: By how much of the elapsed time the clock of a camera may run slow.
_CLOCK_DRIFT = 0.01
#: If the time of a live stream goes back or ahead by more than this in one frame, in seconds, its clock was
#: set anew.
_CLOCK_BACK_S, _CLOCK_AHEAD_S = 1.0, 10.0


@dataclass(slots=True, eq=False)
class Captured:
    """One frame of a source."""

    #: Position in the source, from 0. Counting continues when the source starts again (``loop``).
    number: int
    #: Capture time in seconds since the start of the source; for files, the media time.
    time_s: float
    #: Expected seconds until the next frame.
    duration_s: float
    #: BGR pixels, upright, or the bytes of an image file, unchanged.
    image: Pixels | bytes
    name: str = ""
    #: Reason why this frame is not sent; empty when it is sent.
    skip: str = ""
    #: Time of a live stream's frame by the stream itself, in seconds since it was opened; None if its times
    #: do not show how old a frame is.
    media_s: float | None = None
    _pixels: Pixels | None = None

    def pixels(self) -> Pixels:
        """Return BGR pixels; the first call decodes an image file. Raises BadInput."""
        if self._pixels is None:
            self._pixels = decode(self.image) if isinstance(self.image, bytes) else self.image
        return self._pixels


class MediaTimes:
    """Converts the presentation times of a container to seconds since its first frame, which always increase.

    ``usual_s`` is the usual time between two frames. If the clock of a live stream was set anew, as by a
    sender that was restarted, the times continue from the last frame.
    """

    def __init__(self, usual_s: float, *, live: bool) -> None:
        self._usual_s = usual_s
        self._live = live
        #: Presentation time that is zero; None before the first frame, or when the container has no times.
        self._origin_s: float | None = None
        self._last_s = -usual_s

    def add(self, known_s: float | None) -> float:
        """Return the time of the next frame, whose presentation time is ``known_s``; None means unknown."""
        next_s = self._last_s + self._usual_s
        if self._origin_s is None:
            self._origin_s = known_s
        if known_s is None or self._origin_s is None:
            time_s = next_s
        else:
            time_s = known_s - self._origin_s
            if self._live and not -_CLOCK_BACK_S <= time_s - self._last_s <= _CLOCK_AHEAD_S:
                time_s = next_s
                self._origin_s = known_s - time_s
        if time_s <= self._last_s:
            time_s = self._last_s + self._usual_s / 100
        self._last_s = time_s
        return time_s


class Source(Protocol):
    """Where frames come from: a camera, a video, image files or a network stream."""

    #: True when the source sets the pace (a camera); False when its reader does (a file).
    live: bool

    @property
    def shown(self) -> str:
        """Name for messages, without credentials."""

    @property
    def total(self) -> int | None:
        """Number of frames, or None when it is unknown."""

    def frames(self, stop: threading.Event) -> Iterator[Captured]:
        """Yield frames until the source ends or ``stop`` is set. Raises SourceFailed."""


def paced(
    frames: Iterator[Captured], stop: threading.Event, clock: Callable[[], float] = time.monotonic
) -> Iterator[Captured]:
    """Yield each frame at its capture time; mark a frame that is too late to be skipped as ``late``."""
    begun: float | None = None
    lag_s = 0.0
    for frame in frames:
        if begun is None:
            begun = clock() - frame.time_s
        before_s, lag_s = lag_s, clock() - begun - frame.time_s
        if lag_s < 0:
            if stop.wait(-lag_s):
                return
        elif lag_s > RESYNC_AFTER_S:
            begun, lag_s = clock() - frame.time_s, 0.0
        # Skip only while skipping helps. If the lag has not shrunk since the last frame, the source itself is
        # too slow, and it would never catch up.
        elif lag_s > frame.duration_s and not 0 < before_s <= lag_s:
            frame.skip = "late"
        yield frame


def without_backlog(
    frames: Iterator[Captured], clock: Callable[[], float] = time.monotonic
) -> Iterator[Captured]:
    """Mark old frames of a live source to be skipped as ``late``, which arrive in a burst after a stall.

    Frames that stay late, because the source itself delays them, are not skipped: no newer ones would come.
    """
    #: Least delay of the stream's frames relative to their own times.
    least_s = 0.0
    before: tuple[float, float] | None = None
    for frame in frames:
        if frame.media_s is not None:
            now = clock()
            delay_s = now - frame.media_s
            if before is None or frame.media_s <= before[1]:  # the stream was opened anew
                least_s = delay_s
            else:
                elapsed_s, media_s = now - before[0], frame.media_s - before[1]
                least_s = min(delay_s, least_s + _CLOCK_DRIFT * elapsed_s)
                if delay_s - least_s > BACKLOG_S and elapsed_s < media_s / 2:
                    frame.skip = frame.skip or "late"
            before = now, frame.media_s
        yield frame


def thinned(frames: Iterator[Captured], fps: float) -> Iterator[Captured]:
    """Mark frames to be skipped as ``fps``, so that on average ``fps`` per second of source time remain."""
    next_s = float("-inf")
    for frame in frames:
        if frame.time_s < next_s - 1e-6:
            frame.skip = frame.skip or "fps"
        else:
            next_s = max(next_s + 1 / fps, frame.time_s)
        yield frame
