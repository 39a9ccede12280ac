"""Reads the media type of a request, and its body within limits of size and time.

`media_type` replaces aiohttp's `Request.content_type`, which uses the parser for mail headers. That parser's
time grows with the square of the header's length: eight kilobytes of quotes blocked the event loop for six
seconds, and as many brackets ended in a RecursionError.
"""

from __future__ import annotations

import asyncio
import mmap
import time

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from streamer.core.byte_budget import PIECE_OVERHEAD_BYTES, ByteBudget, Holding
from streamer.http.caller import identity_of
from streamer.http.problem_details import Problem


def media_type(request: web.BaseRequest) -> str:
    """Return type and subtype in lower case, without parameters; empty if the header is absent."""
    return request.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower()


BUDGET = web.AppKey("byte_budget", ByteBudget)

#: After the grace period, a body must arrive at this rate on average.
MIN_BYTES_PER_S = 8 << 10
GRACE_S = 5.0
#: From this size on, a body gets memory pages of its own. Smaller ones reuse memory that the allocator has
#: mapped already.
LARGE_BYTES = 512 << 10
#: `Retry-After` of a refused body; the budget usually has room again after this time.
_RETRY_S = 2


def hold_body(request: web.Request) -> Holding:
    """Return the holding for a request's body; the caller releases it once the answer has been made."""
    return request.app[BUDGET].hold(identity_of(request).name, "body")


class PieceBuffer:
    """Joins the pieces of a body, or of one part of a form, up to ``most_bytes``.

    The caller checks the size before it adds a piece. From `LARGE_BYTES` on, the bytes get pages of their
    own, which take memory only as they fill, and which return to the system with the last reference to the
    bytes. The allocator would keep the freed memory of large bodies, and joining pieces takes twice their
    size.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._pieces: list[bytes] = []
        self._size = 0
        #: None until the bytes are large.
        self._pages: mmap.mmap | None = None

    def add(self, piece: bytes) -> None:
        """Append a piece."""
        self._size += len(piece)
        if self._pages is not None:
            self._pages.write(piece)
            return
        self._pieces.append(piece)
        if self._size >= LARGE_BYTES:
            self._pages = mmap.mmap(-1, max(self._most_bytes, self._size))
            for each in self._pieces:
                self._pages.write(each)
            self._pieces.clear()

    def take(self) -> bytes | memoryview:
        """Return all bytes, and forget them."""
        pieces, pages, size = self._pieces, self._pages, self._size
        self._pieces, self._pages, self._size = [], None, 0
        if pages is not None:
            return memoryview(pages)[:size].toreadonly()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class BodyReader:
    """Reads one body.

    ``limit_s`` is the longest time from the construction of the reader to the last byte of the body.
    ``what`` names the body in error messages; ``hint`` is appended to the message about a timeout.
    """

    def __init__(
        self,
        request: web.Request,
        holding: Holding,
        *,
        most_bytes: int,
        limit_s: float,
        what: str = "The body",
        hint: str = "",
    ) -> None:
        self._content = request.content
        self._holding = holding
        self._most_bytes = most_bytes
        self._limit_s = limit_s
        self._what = what
        self._hint = hint
        self._begun = time.monotonic()
        self._size = 0

    async def read(self) -> bytes:
        """Return the bytes that have arrived, or empty bytes at the end of the body.

        Raises Problem: 400 if the body is not valid HTTP or breaks off, 408 if it is too slow, 413 if it is
        larger than allowed, 503 if the byte budget has no room.
        """
        try:
            piece = await self._next()
        except (web.RequestPayloadError, HttpProcessingError, ConnectionError) as error:
            raise Problem.bad_request(
                "The body broke off or is not valid HTTP.", code="broken_body"
            ) from error
        self._size += len(piece)
        if self._size > self._most_bytes:
            raise Problem.too_large(
                f"{self._what} has more than {self._most_bytes} bytes, which is the limit."
            )
        if piece and not self._holding.take(len(piece) + PIECE_OVERHEAD_BYTES):
            raise Problem.unavailable(
                "Too many bytes of requests are in flight here; try again.", retry_after_s=_RETRY_S
            )
        return piece

    async def read_all(self) -> bytes:
        """Return the whole body. Raises Problem as :meth:`read` does."""
        pieces: list[bytes] = []
        while piece := await self.read():
            pieces.append(piece)
            if self._content.at_eof():
                break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def read_image(self) -> bytes | memoryview:
        """Return the whole body, which may be large. Raises Problem as :meth:`read` does."""
        buffer = PieceBuffer(self._most_bytes)
        while piece := await self.read():
            buffer.add(piece)
            if self._content.at_eof():
                break
        return buffer.take()

    async def _next(self) -> bytes:
        left_s = self._limit_s
        slow_s = GRACE_S + self._size / MIN_BYTES_PER_S
        due_s = min(left_s, slow_s) - (time.monotonic() - self._begun)
        # Check the deadline even if bytes have arrived: otherwise a client that always sends just in time
        # would never be cut off.
        if due_s <= 0:
            raise self._too_slow(slow_s)
        # Usually bytes have arrived already, and no timer is needed.
        piece = self._content.read_nowait()
        if piece or self._content.at_eof():
            return piece
        try:
            async with asyncio.timeout(due_s):
                return await self._content.readany()
        except TimeoutError:
            raise self._too_slow(slow_s) from None

    def _too_slow(self, slow_s: float) -> Problem:
        if slow_s < self._limit_s:
            return Problem.body_timeout(
                f"The body arrives at less than {MIN_BYTES_PER_S} bytes a second, which is the least allowed."
            )
        return Problem.body_timeout(f"The body did not arrive within {self._limit_s:g} s{self._hint}.")
