"""What streams need of frames, whatever their transport: encoded images, or decoded frames of a video."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from streamer.protocol.wire import Codec, FrameFlag, FrameTime


class DecodedFrame(Protocol):
    """A frame that is decoded already, as those of a video are. Its pixels are converted on demand."""

    width: int
    height: int

    @property
    def nbytes(self) -> int:
        """Size of its pixels in bytes."""

    def pixels(self) -> npt.NDArray[np.uint8]:
        """Return the upright pixels as uint8 BGR (height, width, 3)."""


class StreamFrame(Protocol):
    """A frame of a stream: a message of the client (`wire.Frame`), or a decoded frame of a video."""

    @property
    def codec(self) -> Codec:
        """How the payload is encoded, or was."""

    @property
    def seq(self) -> int:
        """Sequence number, which rises with every frame of the stream."""

    @property
    def ts(self) -> int:
        """The sender's clock in microseconds."""

    @property
    def payload(self) -> bytes | memoryview | DecodedFrame:
        """The encoded image, or the decoded frame."""

    @property
    def rotation(self) -> int:
        """Clockwise quarter turns that make the frame upright."""

    @property
    def epoch(self) -> int:
        """A number that changes when the frame's geometry does."""

    @property
    def flags(self) -> FrameFlag:
        """Key frame, discontinuity, last."""

    def stamp(self) -> FrameTime:
        """Return the field by which results name the frame's time."""
