"""What a live stream needs of its frames, whichever transport brings them: encoded images, or video."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from streamer.protocol.wire import Codec, FrameFlag, FrameTime


class Picture(Protocol):
    """A picture that is decoded already, as those of a video are; its pixels are made when asked for."""

    width: int
    height: int

    @property
    def nbytes(self) -> int:
        """Bytes of its pixels."""

    def pixels(self) -> npt.NDArray[np.uint8]:
        """Return it upright as uint8 BGR (height, width, 3)."""


class StreamFrame(Protocol):
    """A frame on its way through a stream: of a message (`wire.Frame`), or of a video."""

    @property
    def codec(self) -> Codec:
        """How the payload is encoded, or was."""

    @property
    def seq(self) -> int:
        """Rises with every frame of the stream."""

    @property
    def ts(self) -> int:
        """The sender's clock in microseconds."""

    @property
    def payload(self) -> bytes | memoryview | Picture:
        """The encoded picture, or the decoded one."""

    @property
    def rotation(self) -> int:
        """Clockwise quarter turns that make the picture upright."""

    @property
    def epoch(self) -> int:
        """Changes when the picture's geometry does."""

    @property
    def flags(self) -> FrameFlag:
        """Key frame, discontinuity, last."""

    def stamp(self) -> FrameTime:
        """Return the field by which results name the frame's time."""
