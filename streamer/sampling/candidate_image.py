"""The picture of a candidate: looked at, and encoded where it came as part of a video. Pure."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import cv2
import numpy as np

from streamer.imaging.decode import Image, decode
from streamer.imaging.header import AnySize
from streamer.imaging.image_header import read_header
from streamer.sampling.candidate import ENCODED, JPEG_QUALITY, PIXELS, Candidate


class Decode(Protocol):
    """Decodes an encoded image."""

    def __call__(self, data: bytes, *, rotation: int, target: tuple[int, int] | None) -> Image:
        """Return the image upright as uint8 BGR, at least as large as ``target``. Raises ImageError."""


def decode_here(data: bytes, *, rotation: int, target: tuple[int, int] | None) -> Image:
    """Decode in this process: for bytes that are not foreign."""
    header = read_header(data, AnySize())
    return decode(data, header, rotation=rotation, target=target, reduce=target is not None).pixels


def image_of(
    candidate: Candidate, target: tuple[int, int] | None = None, decode: Decode = decode_here
) -> Image:
    """Return the picture upright as uint8 BGR (height, width, 3), in full or at least as large as ``target``.

    ``target`` is width and height in pixels; the picture is never enlarged. ``decode`` is asked for what came
    encoded. Raises ImageError.
    """
    data = stored_bytes(candidate)
    if candidate.source == PIXELS:
        return np.frombuffer(data, np.uint8).reshape(candidate.height, candidate.width, 3)
    return decode(data, rotation=candidate.rotation, target=target)


def encoded(candidate: Candidate) -> Candidate:
    """Return the candidate with a picture that can be stored: as it came, or as a JPEG (4.7 ms at 1080p)."""
    if candidate.source != PIXELS:
        return candidate
    image = image_of(candidate)
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return dataclasses.replace(candidate, data=data.tobytes(), source=ENCODED)


def stored_bytes(candidate: Candidate) -> bytes:
    """Return the picture's bytes in their present form."""
    if not isinstance(candidate.data, bytes | memoryview):
        raise TypeError("pictures reach the observer as bytes")
    return bytes(candidate.data)
