"""Reads the small bodies of signalling requests: bounded in size and time, of the kind that is expected."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import hdrs, web

from streamer.http.body import BodyReader, hold_body
from streamer.http.media_type import media_type
from streamer.http.problem_details import Problem


async def read_text(request: web.Request, content_type: str, limit_bytes: int, limit_s: float) -> str:
    """Return the body as text. Raises Problem 408, 413, 415 or 503, or 400 when it is not UTF-8."""
    if media_type(request) != content_type:
        raise Problem.unsupported_media(
            f"Content-Type is {request.headers.get(hdrs.CONTENT_TYPE, '')[:80]!r}; allowed is {content_type}."
        )
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity") != "identity":
        raise Problem.unsupported_media("Content-Encoding is not taken here.")
    with hold_body(request) as holding:
        body = await BodyReader(request, holding, most_bytes=limit_bytes, limit_s=limit_s).read_all()
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise Problem.bad_request(f"The body is not UTF-8: {error}.") from error


async def read_json(request: web.Request, limit_bytes: int, limit_s: float) -> Any:
    """Return the body as JSON. Raises Problem as :func:`read_text`, or 400."""
    text = await read_text(request, "application/json", limit_bytes, limit_s)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Problem.bad_request(f"The body is not JSON: {str(error)[:120]}.") from error
