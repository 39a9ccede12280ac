"""One HTTP connection: what the framework's parser refuses is answered as a problem document too."""

from __future__ import annotations

import logging
import secrets

from aiohttp import web
from aiohttp.web_request import BaseRequest

from streamer.problems import Problem

log = logging.getLogger("streamer.handler")

MAX_LINE_BYTES = 8190
MAX_HEADERS = 64


class ConnectionHandler(web.RequestHandler):
    """aiohttp's protocol of one connection, but for the answer to what is not HTTP."""

    __slots__ = ()

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the answer to a request that never reached a route, or whose answer failed; then close.

        Raises ConnectionError when an answer is on its way already.
        """
        identifier = secrets.token_hex(8)
        if status >= 500:
            log.error("request %s failed outside of its route", identifier, exc_info=exc)
        else:
            log.debug("refused a malformed request: %s", message)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is on its way already, no other can be sent")
        problem = Problem.internal()
        if status < 500:
            problem = Problem(
                status,
                "malformed_request",
                "The request is not valid HTTP, or its head is too large: "
                f"{MAX_LINE_BYTES} bytes a line and {MAX_HEADERS} headers are allowed.",
            )
        response = problem.response(identifier)
        response.force_close()
        return response
