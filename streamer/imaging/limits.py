"""Limits of the size and duration of a request or frame. The settings define them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from aiohttp import web

from streamer.imaging.image_header import ImageHeader, read_header


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds of what a client may send; sizes in bytes and pixels, times in seconds."""

    #: Bytes of one encoded image.
    image_bytes: int = 8 << 20
    #: Bytes of all images of one request together.
    total_bytes: int = 32 << 20
    #: Number of images in one request.
    max_images: int = 16
    #: Pixels of one image, and of its longer side, as its header states.
    image_px: int = 33_554_432
    image_side_px: int = 8192
    #: Time from the request's headers to the last byte of its body.
    body_timeout_s: float = 15.0
    #: Time from the last byte of the body to the last answer of the model.
    request_timeout_s: float = 10.0

    def read_header(self, data: bytes | memoryview) -> ImageHeader:
        """Return the header of an image. Raises ImageError if the image must not be decoded."""
        return read_header(data, self)

    def for_streams(self, message_bytes: int, image_px: int) -> Limits:
        """Return the limits of frames on a live stream, which are tighter."""
        return dataclasses.replace(self, image_bytes=message_bytes, image_px=image_px)


LIMITS = web.AppKey("limits", Limits)
