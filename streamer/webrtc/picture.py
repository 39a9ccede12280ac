"""A decoded picture of a video, kept as the decoder gave it until a model wants its pixels."""

from __future__ import annotations

import av
import cv2
import numpy as np

from streamer.media import Image

#: What cv2 converts quicker than a new scaler for every picture would; needs even sides.
_PLANAR = ("yuv420p",)


class Picture:
    """Owns the decoder's buffer; pixels are made when asked for, in the thread that asks."""

    def __init__(self, frame: av.VideoFrame) -> None:
        self._frame = frame
        self.width: int = frame.width
        self.height: int = frame.height

    @property
    def nbytes(self) -> int:
        """Bytes of its pixels."""
        return 3 * self.width * self.height

    def pixels(self) -> Image:
        """Return the picture as uint8 BGR (height, width, 3)."""
        frame = self._frame
        if frame.format.name in _PLANAR and frame.width % 2 == 0 and frame.height % 2 == 0:
            planes = frame.to_ndarray()
            converted: Image = cv2.cvtColor(planes, cv2.COLOR_YUV2BGR_I420)
            return converted
        return np.ascontiguousarray(frame.to_ndarray(format="bgr24"))
