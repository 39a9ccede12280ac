"""The video that goes back: each examined picture with its boxes drawn, newest wins."""

from __future__ import annotations

import asyncio
import fractions
from collections import OrderedDict

import av
import numpy as np
from aiortc import MediaStreamTrack

from streamer.imaging.draw import draw_boxes, label_rows
from streamer.imaging.frame import Picture

_CLOCK = fractions.Fraction(1, 90_000)
#: Pictures that are being examined: two have begun, one waits, one may just have been answered.
_MAX_EXAMINED = 4

Rows = list[list[float]]


class AnnotatedTrack(MediaStreamTrack):
    """Tell it of every picture and every result; the sender takes what is newest."""

    kind = "video"

    def __init__(self, labels: tuple[str, ...]) -> None:
        super().__init__()
        self._labels = labels
        #: Pictures by their frame's sequence number, oldest first, and their time on the 90 kHz clock.
        self._examined: OrderedDict[int, tuple[Picture, int]] = OrderedDict()
        #: Picture, time and boxes to go out next; None while there is nothing new.
        self._next: tuple[Picture, int, Rows] | None = None
        self._filled = asyncio.Event()
        self._last_pts = -1

    def examined(self, seq: int, picture: Picture, ts_us: int) -> None:
        """A picture may be examined; ``ts_us`` is its sender's clock in microseconds."""
        self._examined[seq] = (picture, ts_us * 9 // 100)
        if len(self._examined) > _MAX_EXAMINED:
            self._examined.popitem(last=False)

    def answered(self, seq: int, rows: Rows) -> None:
        """A picture has its boxes: rows of x1, y1, x2, y2, score, class id and perhaps track id."""
        found = self._examined.pop(seq, None)
        if found is not None:
            self._next = (*found, rows)
            self._filled.set()

    async def recv(self) -> av.VideoFrame:
        """Return the next frame; called by the sender."""
        while self._next is None:
            self._filled.clear()
            await self._filled.wait()
        (picture, pts, rows), self._next = self._next, None
        frame = await asyncio.get_running_loop().run_in_executor(None, self._draw, picture, rows)
        # The encoder wants a time that rises.
        self._last_pts = frame.pts = max(pts, self._last_pts + 1)
        frame.time_base = _CLOCK
        return frame

    def _draw(self, picture: Picture, rows: Rows) -> av.VideoFrame:
        """Draw and convert. Runs in a thread."""
        image = np.ascontiguousarray(picture.pixels()[: picture.height & ~1, : picture.width & ~1])
        draw_boxes(image, label_rows(rows, self._labels))
        return av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format="yuv420p")
