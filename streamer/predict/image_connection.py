"""Connects to the hosts of images, and limits how much of an answer may be anything but the image.

aiohttp parses what the socket delivers in one call, up to 256 KiB, and accepts any number of informational
answers (`100 Continue`) and chunks of one byte. A hostile host could make each of these calls last 0.15 s, in
which no other client is served. Therefore this module parses the answer in small steps, and closes the
connection when headers, informational answers and chunk sizes take more bytes than an honest host needs.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

#: Bytes that are parsed at once.
STEP_BYTES = 4 << 10
#: Bytes of an answer that may be anything but the image: headers, informational answers, chunk sizes.
FRAMING_BYTES = 16 << 10
#: Share of the image by which they may be more.
FRAMING_SHARE = 0.25


class TooMuchFraming(aiohttp.ClientPayloadError):
    """Raised when an answer has more bytes besides the image than an honest host needs."""


class BoundedAnswer(ResponseHandler):
    """Parses the answer of one connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._parsed_bytes = 0
        #: Bytes that wait until the reader of the image has room for more.
        self._unparsed = b""

    def data_received(self, data: bytes) -> None:
        """Parse bytes from the socket, or with empty ``data`` those that wait here and in the parser."""
        if self._parser is None:  # the request is still being sent, and the base class keeps the bytes
            super().data_received(data)
            return
        if not data:
            super().data_received(data)
        waiting, begin = self._unparsed + data, 0
        while begin < len(waiting) and not self._reading_paused and self.exception() is None:
            step = waiting[begin : begin + STEP_BYTES]
            begin += len(step)
            self._parsed_bytes += len(step)
            super().data_received(step)
            self._check_framing()
        self._unparsed = waiting[begin:] if self.exception() is None else b""

    def _check_framing(self) -> None:
        body = self._payload
        image_bytes = body.total_bytes if body is not None else 0
        if self._parsed_bytes - image_bytes <= FRAMING_BYTES + FRAMING_SHARE * image_bytes:
            return
        error = TooMuchFraming("the answer consists of too many headers or too small chunks")
        if self.transport is not None:
            self.transport.abort()
        self.set_exception(error)
        if body is not None:
            body.set_exception(error)


class ImageConnector(aiohttp.TCPConnector):
    """Opens connections whose answers are bounded."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        make: type[ResponseHandler] = BoundedAnswer
        self._factory = partial(make, loop=self._loop)
