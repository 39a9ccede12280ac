"""Makes the video that is sent back to the client, of inferred frames with their boxes drawn."""

from __future__ import annotations

import asyncio
import fractions
from collections import OrderedDict
from collections.abc import Sequence

import av
import numpy as np
from aiortc import MediaStreamTrack

from streamer.imaging.draw import draw_boxes, label_rows
from streamer.imaging.frame import DecodedFrame

_CLOCK = fractions.Fraction(1, 90_000)
#: Most frames kept for their results: two are being inferred, one waits, one may have its result already.
_MAX_FRAMES = 4

Rows = list[list[float]]
Texts = Sequence[str | None]


class AnnotatedTrack(MediaStreamTrack):
    """Takes every frame and every result of a stream. The sender gets the newest frame that has a result."""

    kind = "video"

    def __init__(self, labels: tuple[str, ...]) -> None:
        super().__init__()
        #: Labels of the classes of the results that come next.
        self.labels = labels
        #: Frames by sequence number, oldest first, with their time on the 90 kHz clock.
        self._frames: OrderedDict[int, tuple[DecodedFrame, int]] = OrderedDict()
        #: The next frame to send, with its time, boxes, texts and labels; None while there is no new one.
        self._next: tuple[DecodedFrame, int, Rows, Texts, Sequence[str]] | None = None
        self._filled = asyncio.Event()
        self._last_pts = -1

    def frame_received(self, seq: int, decoded: DecodedFrame, ts_us: int) -> None:
        """Keep a frame until its result arrives; ``ts_us`` is its sender's time in microseconds."""
        self._frames[seq] = (decoded, ts_us * 9 // 100)
        if len(self._frames) > _MAX_FRAMES:
            self._frames.popitem(last=False)

    def result_received(self, seq: int, rows: Rows, texts: Texts) -> None:
        """Take the result of a frame: rows of x1, y1, x2, y2, score, class id and possibly track id.

        ``texts`` are those of codes, by row, or none.
        """
        found = self._frames.pop(seq, None)
        if found is not None:
            self._next = (*found, rows, texts, self.labels)
            self._filled.set()

    async def recv(self) -> av.VideoFrame:
        """Return the next frame; called by the sender."""
        while self._next is None:
            self._filled.clear()
            await self._filled.wait()
        (decoded, pts, rows, texts, labels), self._next = self._next, None
        loop = asyncio.get_running_loop()
        frame = await loop.run_in_executor(None, _draw, decoded, rows, texts, labels)
        # The encoder requires that the time of each frame is later than that of the one before.
        self._last_pts = frame.pts = max(pts, self._last_pts + 1)
        frame.time_base = _CLOCK
        return frame


def _draw(decoded: DecodedFrame, rows: Rows, texts: Texts, labels: Sequence[str]) -> av.VideoFrame:
    """Draw the boxes and convert the frame. Runs in a thread."""
    image = np.ascontiguousarray(decoded.pixels()[: decoded.height & ~1, : decoded.width & ~1])
    draw_boxes(image, label_rows(rows, labels, texts))
    return av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format="yuv420p")
