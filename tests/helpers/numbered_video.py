"""Writes videos whose frames are numbered by brightness, so that tests know which frame they received."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from streamer.client.capture import Captured

FPS = 10
_SOON_S = 60.0
#: Numbers of frames are known modulo this.
NUMBERS = 55
WIDTH, HEIGHT = 160, 96
#: Luma of frame 0, and the step to the next frame.
_DARKEST, _STEP = 40, 3
#: A BGR value is this many times what luma exceeds 16 by (ITU-R BT.601, limited range).
_RANGE = 255 / 219


def number_of(frame: Captured) -> int:
    """Return the number of a frame, modulo `NUMBERS`."""
    luma = float(np.mean(frame.pixels())) / _RANGE + 16
    return round((luma - _DARKEST) / _STEP) % NUMBERS


def packets(container: Any, count: int, *, key_interval_s: int) -> Iterator[Any]:
    """Yield the packets of a new H.264 stream of ``count`` frames, one for each frame."""
    every = str(key_interval_s * FPS)
    options = {"g": every, "keyint_min": every, "sc_threshold": "0", "tune": "zerolatency", "crf": "18"}
    options["preset"] = "ultrafast"
    stream = container.add_stream("libx264", rate=FPS, options=options)
    stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    # Noise makes frames as large as those of a camera; without it they would wait in buffers.
    noise = np.random.default_rng(1).normal(0, 6, (4, HEIGHT, WIDTH))
    for number in range(count):
        planes = np.full((HEIGHT * 3 // 2, WIDTH), 128, np.uint8)
        planes[:HEIGHT] = np.rint(noise[number % 4] + _DARKEST + number % NUMBERS * _STEP)
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.pts, frame.time_base = number, Fraction(1, FPS)
        yield from stream.encode(frame)
    yield from stream.encode(None)


def write_numbered(path: Path, seconds: int, *, key_interval_s: int) -> Path:
    """Write a video file of this length with a key frame in each interval."""
    with av.open(str(path), "w") as container:
        for packet in packets(container, seconds * FPS, key_interval_s=key_interval_s):
            container.mux(packet)
    return path


def frames_of_stream(format_name: str, count: int) -> list[bytes]:
    """Return the bytes of each frame of a stream, whose first frame is its only key frame.

    ``format_name`` is FFmpeg's name of its format, such as ``mpegts`` or ``h264``.
    """
    memory, pieces = io.BytesIO(), []
    with av.open(memory, "w", format=format_name, options={"flush_packets": "1"}) as container:
        for packet in packets(container, count, key_interval_s=count):
            begun = memory.tell()
            container.mux(packet)
            pieces.append(memory.getvalue()[begun:])
    return pieces


class StepByStep:
    """Lets the sender of a stream go ahead only as far as its reader keeps up.

    Until the reader has its first frame, the sender sends in real time. Then it waits, before it sends frame
    n, until the reader has frame n - 1 - ``held_back``. A reader that holds back more frames never gets
    another one.
    """

    def __init__(self, held_back: int) -> None:
        self._held_back = held_back
        self._news = threading.Condition()
        #: Number of the last frame that was received; None before the first one.
        self._received: int | None = None
        self.failed = False

    def wait_before(self, number: int) -> bool:
        """Wait until the frame ``number`` may be sent; return whether the reader has kept up."""

        def may_go() -> bool:
            return self._received is not None and self._received >= number - 1 - self._held_back

        with self._news:
            if self._received is None:
                self._news.wait_for(may_go, 1 / FPS)
                return True
            self.failed = self.failed or not self._news.wait_for(may_go, _SOON_S)
            return not self.failed

    def received(self, number: int) -> None:
        """Record that the reader has received a frame."""
        with self._news:
            self._received = number
            self._news.notify_all()
