"""Answers with a large body: sent piece by piece, so that a slow reader holds little of it, and budgeted."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.web_request import BaseRequest

from streamer.core.byte_budget import Holding
from streamer.http.body import BUDGET
from streamer.http.caller import identity_of
from streamer.http.problem_details import Problem

#: The transport pauses at this many bytes; smaller bodies fit as they are.
PIECE_BYTES = 64 << 10
_RETRY_S = 2


class PacedResponse(web.Response):
    """Sends each piece of its body when the ones before have left for the kernel.

    ``holding`` is charged for the body while it is sent; None for bodies that are in memory anyway.
    """

    _holding: Holding | None = None
    _has_no_body = False

    def charge(self, holding: Holding) -> None:
        """Charge the body to ``holding`` while it is sent."""
        self._holding = holding

    async def prepare(self, request: BaseRequest) -> AbstractStreamWriter | None:
        """Send the headers."""
        self._has_no_body = request.method == hdrs.METH_HEAD
        return await super().prepare(request)

    async def write_eof(self, data: bytes = b"") -> None:
        """Send the body."""
        body = self.body
        if self._has_no_body or not isinstance(body, bytes) or len(body) <= PIECE_BYTES:
            await super().write_eof(data)
            return
        holding = self._holding
        try:
            if holding is not None:
                # Room was found a moment ago; at worst this body is not counted.
                holding.take(len(body))
            view = memoryview(body)
            for start in range(0, len(body), PIECE_BYTES):
                await self.write(view[start : start + PIECE_BYTES])
            await web.StreamResponse.write_eof(self)
        finally:
            if holding is not None:
                holding.release()


def large_answer(
    request: web.Request, body: bytes, content_type: str, extra_headers: Mapping[str, str] | None = None
) -> web.Response:
    """Return an answer made for one request. Raises Problem 503 where the byte budget has no room for it."""
    # As a header: the framework's parameter takes no charset.
    headers = {hdrs.CONTENT_TYPE: content_type, hdrs.CACHE_CONTROL: "no-store", **(extra_headers or {})}
    if len(body) <= PIECE_BYTES:
        return web.Response(body=body, headers=headers)
    holding = request.app[BUDGET].hold(identity_of(request).name, "answer")
    with holding:
        if not holding.take(len(body)):
            raise Problem.unavailable(
                "Too many bytes of answers are in flight here; try again.", retry_after_s=_RETRY_S
            )
    response = PacedResponse(body=body, headers=headers)
    response.charge(holding)
    return response
