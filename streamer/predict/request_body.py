"""Reads the body of a predict request, a raw image or a form, within limits of size and time."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import hdrs, web

from streamer.core.byte_budget import Holding
from streamer.http.body import BodyReader
from streamer.http.media_type import media_type
from streamer.http.problem_details import Problem, request_id
from streamer.imaging.limits import LIMITS, Limits
from streamer.predict.multipart_form import OVERHEAD_BYTES, FormReader, read_boundary

#: Content types that say nothing about the image, whose first bytes then tell its format. urllib and
#: `curl --data-binary` send the last one.
_RAW_TYPES = frozenset({"", "application/octet-stream", "application/x-www-form-urlencoded"})
_HOW = "send the image as the body with Content-Type image/jpeg, or a multipart form with a field `file`"


@dataclass(frozen=True, slots=True)
class Upload:
    """The content of a body, in order."""

    #: Encoded images, at least one; not checked yet.
    images: tuple[bytes, ...]
    #: Name and text of the form's other fields.
    fields: tuple[tuple[str, str], ...] = ()


async def read_upload(request: web.Request, limits: Limits, holding: Holding) -> Upload:
    """Read the whole body and charge it to ``holding``; ``limits`` apply to its bytes, images and duration.

    Raises Problem: 400 if it has no image or is malformed, 408 if it is too slow, 413 if it is too large (at
    once if Content-Length says so, else while reading), 415 if it is neither an image nor a form, 503 if the
    byte budget has no room.
    """
    is_form = check_head(request, limits)
    body = BodyReader(
        request,
        holding,
        most_bytes=_most_bytes(limits, is_form=is_form),
        limit_s=limits.body_timeout_s,
        what="The form" if is_form else "The image",
        hint="; send a smaller image",
    )
    if is_form:
        return await _read_form(read_boundary(request.headers[hdrs.CONTENT_TYPE]), body, limits)
    data = await body.read_all()
    if not data:
        raise Problem.bad_request(f"The request holds no image; {_HOW}.", code="no_image")
    return Upload((data,))


async def _read_form(boundary: str, body: BodyReader, limits: Limits) -> Upload:
    form = FormReader(boundary, limits)
    await form.read(body.read)
    if not form.images:
        raise Problem.bad_request(
            f"The form has no field `file`{form.found()}; {_HOW}.", code="no_image", field="file"
        )
    return Upload(tuple(form.images), tuple(form.fields))


def _most_bytes(limits: Limits, *, is_form: bool) -> int:
    return limits.total_bytes + OVERHEAD_BYTES if is_form else limits.image_bytes


def check_head(request: web.Request, limits: Limits) -> bool:
    """Check the request's headers and return whether its body is a form. Raises Problem 400, 413 or 415."""
    encoding = request.headers.get(hdrs.CONTENT_ENCODING)
    if encoding is not None and (encoding := encoding.strip().lower()) != "identity":
        raise Problem.unsupported_media(
            f"Content-Encoding is {encoding[:40]!r}; images are compressed already, send them as they are."
        )
    kind = media_type(request)
    is_form = kind == "multipart/form-data"
    if not (is_form or kind in _RAW_TYPES or kind.startswith("image/")):
        raise Problem.unsupported_media(f"Content-Type is {kind[:80]!r}; {_HOW}.")
    if is_form:
        read_boundary(request.headers[hdrs.CONTENT_TYPE])
    most, announced = _most_bytes(limits, is_form=is_form), request.content_length
    if announced is not None and announced > most:
        raise Problem.too_large(f"The body has {announced} bytes; allowed are {most}.")
    return is_form


async def expect_continue(request: web.Request) -> web.Response | None:
    """Answer ``Expect: 100-continue``, so that a client need not send a body that would be refused."""
    if request.headers.get(hdrs.EXPECT, "").lower() != "100-continue":
        problem = Problem(417, "expectation_failed", "The only expectation known is 100-continue.")
        return problem.response(request_id(request))
    try:
        check_head(request, request.app[LIMITS])
    except Problem as problem:
        return problem.response(request_id(request))
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    # The interim response does not count as part of the answer; aiohttp's own handler does the same.
    request.writer.output_size = 0
    return None
