"""A decoded picture of a video, in memory of the process that decoded it, until a model wants its pixels."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from streamer.webrtc.video_messages import Layout

Image = npt.NDArray[np.uint8]


class Picture:
    """Owns its place in the decoder's memory; pixels are made when asked for, in the thread that asks.

    ``release`` is called when nobody uses the picture any more, in whichever thread that happens.
    """

    def __init__(
        self, width: int, height: int, layout: Layout, memory: Image, release: Callable[[], None]
    ) -> None:
        self.width = width
        self.height = height
        self._layout = layout
        self._memory = memory
        self._release = release

    def __del__(self) -> None:
        self._release()

    @property
    def nbytes(self) -> int:
        """Bytes of its pixels."""
        return 3 * self.width * self.height

    def pixels(self) -> Image:
        """Return the picture as uint8 BGR (height, width, 3), in memory of its own."""
        if self._layout is Layout.BGR:
            return self._memory.reshape(self.height, self.width, 3).copy()
        planes = self._memory.reshape(self.height * 3 // 2, self.width)
        converted: Image = cv2.cvtColor(planes, cv2.COLOR_YUV2BGR_I420)
        return converted
