"""Defines the interface of a stream's frames for every transport: encoded images or decoded video frames."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from streamer.protocol.wire import Codec, FrameFlag, FrameTime


class DecodedFrame(Protocol):
    """A frame that is decoded already, such as a video frame. Its pixels are converted on demand."""

    width: int
    height: int

    @property
    def nbytes(self) -> int:
        """Size of its pixels in bytes."""

    def pixels(self) -> npt.NDArray[np.uint8]:
        """Return the upright pixels as uint8 BGR (height, width, 3)."""

    def grey(self) -> npt.NDArray[np.uint8]:
        """Return the upright pixels as uint8 grey (height, width), contiguous."""


class StreamFrame(Protocol):
    """A frame of a stream: a message of the client (`wire.Frame`), or a decoded frame of a video."""

    @property
    def codec(self) -> Codec:
        """Codec of the payload; for a decoded frame, the codec from which it was decoded."""

    @property
    def seq(self) -> int:
        """Sequence number, which increases with every frame of the stream."""

    @property
    def ts(self) -> int:
        """Timestamp of the sender's clock in microseconds."""

    @property
    def payload(self) -> bytes | memoryview | DecodedFrame:
        """The encoded image, or the decoded frame."""

    @property
    def rotation(self) -> int:
        """Clockwise quarter turns that make the frame upright."""

    @property
    def epoch(self) -> int:
        """A number that changes whenever the frame's geometry changes."""

    @property
    def flags(self) -> FrameFlag:
        """Whether it is a key frame, follows a discontinuity, or is the last frame."""

    def stamp(self) -> FrameTime:
        """Return the field in which a result states the time of its frame."""
