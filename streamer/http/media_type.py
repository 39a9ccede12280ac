"""Reads the media type of a request's body from its `Content-Type`.

aiohttp's own `Request.content_type` uses the parser for mail headers, whose time grows with the square of the
header's length: eight kilobytes of quotes blocked the event loop for six seconds, and as many brackets ended
in a RecursionError.
"""

from __future__ import annotations

from aiohttp import hdrs, web


def media_type(request: web.BaseRequest) -> str:
    """Return type and subtype in lower case, without parameters; empty if the header is absent."""
    return request.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower()
