"""The image of a candidate: decoded for features and fingerprints, encoded for storage. Pure."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from streamer.imaging.decode import Image, decode
from streamer.imaging.header import AnySize
from streamer.imaging.image_header import read_header
from streamer.sampling.candidate import ENCODED, JPEG_QUALITY, PIXELS, SampleCandidate


class Decode(Protocol):
    """Decodes an encoded image."""

    def __call__(self, data: bytes, *, rotation: int, target: tuple[int, int] | None) -> Image:
        """Return the image upright as uint8 BGR, at least as large as ``target``. Raises ImageError."""


def decode_here(data: bytes, *, rotation: int, target: tuple[int, int] | None) -> Image:
    """Decode in this process; only for trusted bytes, as in tests. The service decodes in a sandbox."""
    header = read_header(data, AnySize())
    return decode(data, header, rotation=rotation, target=target, reduce=target is not None).pixels


def image_of(
    candidate: SampleCandidate, target: tuple[int, int] | None = None, decode: Decode = decode_here
) -> Image:
    """Return the image upright as uint8 BGR (height, width, 3).

    With ``target``, a width and height in pixels, it may be reduced, but stays at least that large.
    ``decode`` is called for encoded images. Raises ImageError.
    """
    data = image_bytes(candidate)
    if candidate.source == PIXELS:
        return np.frombuffer(data, np.uint8).reshape(candidate.height, candidate.width, 3)
    return decode(data, rotation=candidate.rotation, target=target)


def encoded(candidate: SampleCandidate) -> SampleCandidate:
    """Return the candidate with an encoded image; pixels become a JPEG, which takes 4.7 ms at 1080p."""
    if candidate.source != PIXELS:
        return candidate
    image = image_of(candidate)
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return dataclasses.replace(candidate, data=data.tobytes(), source=ENCODED)


def image_bytes(candidate: SampleCandidate) -> bytes:
    """Return the bytes of the image in its present form."""
    if not isinstance(candidate.data, bytes | memoryview):
        raise TypeError("the sampling process gets images as bytes")
    return bytes(candidate.data)


def fingerprint(image: npt.NDArray[np.uint8]) -> int:
    """Return the difference hash of a BGR image: near-duplicates differ in few of its 64 bits.

    Each bit says whether one of 8 x 8 cells is brighter than its left neighbour.
    """
    small = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (9, 8), interpolation=cv2.INTER_AREA)
    bits = np.packbits(small[:, 1:] > small[:, :-1])
    return int.from_bytes(bits.tobytes(), "big")
