"""Records captured frames with their boxes to a video file, timed as captured.

Encodes with PyAV in a thread.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from streamer.client.capture import Captured
from streamer.client.detections import Detections
from streamer.client.encoder import Pixels
from streamer.client.errors import BadInput, SaveFailed
from streamer.imaging.draw import draw_on_copy

SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv")
_TICKS = 90_000
#: Most queued frames: more than wait for an outcome at once, so only a slow disk or encoder fills the queue.
QUEUE_MAX = 32
#: Frames without a result show the newest boxes unless these are older than this.
MAX_BOX_AGE_S = 1.0
_ENCODERS: tuple[tuple[str, dict[str, str]], ...] = (
    # Without B-frames, frames are written in the order in which they are shown, and the file starts at 0.
    ("libx264", {"preset": "veryfast", "crf": "23", "bf": "0", "g": "60"}),
    ("h264", {"bf": "0"}),
    ("mpeg4", {"bf": "0", "q": "5"}),
)


def check_path(path: Path) -> None:
    """Raise BadInput when a recording cannot be written to this path."""
    if path.suffix.lower() not in SUFFIXES:
        raise BadInput(f"--save {path}: allowed are {', '.join(SUFFIXES)}")
    if not path.absolute().parent.is_dir():
        raise BadInput(f"--save {path}: the folder does not exist")


@dataclass(slots=True)
class _Entry:
    """Holds a queued frame, which is written once it and all frames before it are settled."""

    frame: Captured
    settled: bool = False
    detections: Detections | None = None


class Recorder:
    """Writes one recording. ``add`` each frame in order; ``settle`` it once its boxes are known or ruled out.

    The frame rate is variable, because frames keep their capture times. Thread-safe.
    """

    def __init__(self, path: Path) -> None:
        check_path(path)
        self.path = path
        self.written = 0
        #: Number of frames that were not recorded because the queue was full.
        self.missed = 0
        self.duration_s = 0.0
        self._queue: deque[_Entry] = deque()
        self._open: dict[int, _Entry] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._failure: SaveFailed | None = None
        self._writer = _Writer(path)
        self._thread = threading.Thread(target=self._write_all, name="recorder", daemon=True)
        self._thread.start()

    def add(self, frame: Captured, *, wait_stop: threading.Event | None = None) -> bool:
        """Add a frame; return whether it will be recorded.

        If the queue is full, wait for room until ``wait_stop`` is set, or return False if that is None.
        Raises SaveFailed when the file could not be written.
        """
        with self._changed:
            while len(self._queue) >= QUEUE_MAX and self._failure is None:
                if wait_stop is None or wait_stop.is_set():
                    self.missed += 1
                    return False
                self._changed.wait(0.1)
            if self._failure is not None:
                raise self._failure
            entry = _Entry(frame)
            self._queue.append(entry)
            self._open[frame.number] = entry
            return True

    def settle(self, frame: Captured, detections: Detections | None) -> None:
        """Set the boxes of a frame. With None, the video shows the newest known boxes on it."""
        with self._changed:
            entry = self._open.pop(frame.number, None)
            if entry is not None:
                entry.settled, entry.detections = True, detections
                self._changed.notify_all()

    def close(self) -> None:
        """Write the queued frames and finish the file. Blocks. Raises SaveFailed."""
        with self._changed:
            for entry in self._open.values():
                entry.settled = True
            self._open.clear()
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _write_all(self) -> None:
        known: tuple[float, Detections] | None = None
        try:
            with contextlib.closing(self._writer):
                while (entry := self._next()) is not None:
                    frame = entry.frame
                    if entry.detections is not None:
                        known = (frame.time_s, entry.detections)
                    image = _readable(frame)
                    if image is None:
                        continue
                    if known is not None and frame.time_s - known[0] <= MAX_BOX_AGE_S:
                        image = draw_on_copy(image, known[1])
                    self._writer.write(image, frame.time_s, frame.duration_s)
                    self.written += 1
            self.duration_s = self._writer.duration_s
        except (av.error.FFmpegError, OSError, cv2.error, ValueError) as error:
            with self._changed:
                self._failure = SaveFailed(f"--save {self.path}: {getattr(error, 'strerror', '') or error}")
                self._queue.clear()
                self._changed.notify_all()

    def _next(self) -> _Entry | None:
        with self._changed:
            while not (self._queue and self._queue[0].settled):
                if self._closing and not self._queue:
                    return None
                self._changed.wait()
            self._changed.notify_all()
            return self._queue.popleft()


def _readable(frame: Captured) -> Pixels | None:
    try:
        return frame.pixels()
    except BadInput:  # the image file is damaged; its outcome reports that
        return None


class _Writer:
    """Writes the video file. The first frame determines its size, to which all others are fitted."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._container: Any = None
        self._stream: Any = None
        self._origin_s = 0.0
        self._last_tick = -1
        self._last_ticks = 1
        self.duration_s = 0.0
        # Create the file now, so that a missing permission is reported at once.
        try:
            path.open("wb").close()
        except OSError as error:
            raise SaveFailed(f"--save {path}: {error.strerror or error}") from error

    def write(self, image: Pixels, time_s: float, duration_s: float) -> None:
        """Encode one frame, to be shown at the capture time ``time_s``."""
        if self._container is None:
            self._open(image)
            self._origin_s = time_s
        fitted = _fit(image, self._stream.width, self._stream.height)
        frame = av.VideoFrame.from_ndarray(fitted, format="bgr24")
        tick = max(self._last_tick + 1, round((time_s - self._origin_s) * _TICKS))
        frame.pts, frame.time_base = tick, Fraction(1, _TICKS)
        self._last_tick, self._last_ticks = tick, max(1, round(duration_s * _TICKS))
        self.duration_s = (tick + self._last_ticks) / _TICKS
        self._mux(self._stream.encode(frame))

    def _open(self, image: Pixels) -> None:
        # Fragments keep the file playable after a crash, except for its last seconds.
        fragments = {"movflags": "+hybrid_fragmented", "frag_duration": "1000000", "flush_packets": "1"}
        options = {} if self._path.suffix.lower() == ".mkv" else fragments
        height, width = image.shape[:2]
        container = av.open(str(self._path), "w", options=options)
        self._container = container
        for name, settings in _ENCODERS:
            try:
                stream: Any = container.add_stream(name, rate=30, options=settings)
            except (av.codec.codec.UnknownCodecError, ValueError):
                continue
            # Both sides must be even, because the chroma planes have half the size.
            stream.width, stream.height = width + width % 2, height + height % 2
            stream.pix_fmt = "yuv420p"
            stream.time_base = stream.codec_context.time_base = Fraction(1, _TICKS)
            self._stream = stream
            return
        raise ValueError("this build of PyAV has no H.264 or MPEG-4 encoder")

    def _mux(self, packets: Any) -> None:
        for packet in packets:
            if packet.pts == self._last_tick:
                packet.duration = self._last_ticks  # all other packets last until the next one
            self._container.mux(packet)

    def close(self) -> None:
        """Flush the encoder and finish the file."""
        if self._container is None:
            return
        container, self._container = self._container, None
        try:
            if self._stream is not None and self._last_tick >= 0:
                self._container = container
                self._mux(self._stream.encode(None))
        finally:
            self._container = None
            container.close()


def _fit(image: Pixels, width: int, height: int) -> Pixels:
    """Fit a frame to the size of the recording: pad it by up to one pixel, or else letterbox it."""
    have_height, have_width = image.shape[:2]
    if (have_width, have_height) == (width, height):
        return np.ascontiguousarray(image)
    if not (0 <= width - have_width <= 1 and 0 <= height - have_height <= 1):
        ratio = min(width / have_width, height / have_height)
        size = (max(1, round(have_width * ratio)), max(1, round(have_height * ratio)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        have_height, have_width = image.shape[:2]
        left, top = (width - have_width) // 2, (height - have_height) // 2
        sides = (top, height - have_height - top, left, width - have_width - left)
        return np.asarray(cv2.copyMakeBorder(image, *sides, cv2.BORDER_CONSTANT), np.uint8)
    sides = (0, height - have_height, 0, width - have_width)
    return np.asarray(cv2.copyMakeBorder(image, *sides, cv2.BORDER_REPLICATE), np.uint8)
