"""How large and how slow a request or frame may be; made from the settings, handed to whoever checks."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from aiohttp import web

from streamer.imaging.image_header import ImageHeader, read_header


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds of what a client may send; sizes in bytes and pixels, times in seconds."""

    #: One encoded image.
    image_bytes: int = 8 << 20
    #: All images of one request together.
    total_bytes: int = 32 << 20
    #: Images of one request.
    max_images: int = 16
    #: Pixels of one image, and of its longer side, as its header claims.
    image_px: int = 33_554_432
    image_side_px: int = 8192
    #: From the request's headers to the last byte of its body.
    body_timeout_s: float = 15.0
    #: From the last byte of the body to the last answer of the model.
    request_timeout_s: float = 10.0

    def read_header(self, data: bytes | memoryview) -> ImageHeader:
        """Return what an image claims to be. Raises ImageError when it may not be decoded."""
        return read_header(data, self)

    def for_streams(self, message_bytes: int, image_px: int) -> Limits:
        """Return the limits of frames on a live stream, which are tighter."""
        return dataclasses.replace(self, image_bytes=message_bytes, image_px=image_px)


LIMITS = web.AppKey("limits", Limits)
