"""Sends large bodies piece by piece within the byte budget, so that slow clients take little buffer."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.web_request import BaseRequest

from streamer.core.byte_budget import Holding
from streamer.http.body import BUDGET
from streamer.http.caller import identity_of
from streamer.http.problem_details import Problem

#: The transport pauses at this many buffered bytes. Bodies up to this size are sent in one piece.
PIECE_BYTES = 64 << 10
_RETRY_S = 2


class PacedResponse(web.Response):
    """Sends each piece of its body once the transport has room for it.

    While it sends the body, it can charge the body to a holding. Bodies that stay in memory anyway need none.
    """

    _holding: Holding | None = None
    _has_no_body = False
    #: If set, it is called once the body has been handed to the transport.
    on_sent: Callable[[], None] | None = None

    def charge(self, holding: Holding) -> None:
        """Charge the body to ``holding`` while it is sent."""
        self._holding = holding

    async def prepare(self, request: BaseRequest) -> AbstractStreamWriter | None:
        """Send the headers."""
        self._has_no_body = request.method == hdrs.METH_HEAD
        return await super().prepare(request)

    async def write_eof(self, data: bytes = b"") -> None:
        """Send the body."""
        await self._send(data)
        told, self.on_sent = self.on_sent, None
        if told is not None:
            told()

    async def _send(self, data: bytes) -> None:
        body = self.body
        if self._has_no_body or not isinstance(body, bytes) or len(body) <= PIECE_BYTES:
            await super().write_eof(data)
            return
        holding = self._holding
        try:
            if holding is not None:
                # `large_answer` has found room a moment ago. If others have taken that room since, the body
                # is sent without being counted.
                holding.take(len(body))
            view = memoryview(body)
            for start in range(0, len(body), PIECE_BYTES):
                await self.write(view[start : start + PIECE_BYTES])
            await web.StreamResponse.write_eof(self)
        finally:
            if holding is not None:
                holding.release()


def large_answer(
    request: web.Request,
    body: bytes,
    content_type: str,
    extra_headers: Mapping[str, str] | None = None,
    *,
    on_sent: Callable[[], None] | None = None,
) -> web.Response:
    """Return an answer made for one request. Raises Problem 503 if the byte budget has no room for it.

    ``on_sent`` is called once the body has been handed to the transport.
    """
    # Set the type as a header, because aiohttp's parameter `content_type` accepts no charset.
    headers = {hdrs.CONTENT_TYPE: content_type, hdrs.CACHE_CONTROL: "no-store", **(extra_headers or {})}
    if len(body) <= PIECE_BYTES:
        if on_sent is None:
            return web.Response(body=body, headers=headers)
        small = PacedResponse(body=body, headers=headers)
        small.on_sent = on_sent
        return small
    holding = request.app[BUDGET].hold(identity_of(request).name, "answer")
    with holding:
        if not holding.take(len(body)):
            raise Problem.unavailable(
                "Too many bytes of answers are in flight here; try again.", retry_after_s=_RETRY_S
            )
    response = PacedResponse(body=body, headers=headers)
    response.charge(holding)
    response.on_sent = on_sent
    return response
