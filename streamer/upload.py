"""Takes the body of a predict request off the wire: bounded, under one deadline, raw or as a form."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import BodyPartReader, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError, InvalidHeader

from streamer.limits import LIMITS, Limits
from streamer.problems import Problem, request_id

#: Text fields of a form, together with the part headers, beyond its images.
_FORM_OVERHEAD_BYTES = 64 << 10
_FIELD_BYTES = 8 << 10
_MAX_FIELDS = 64
_CHUNK_BYTES = 64 << 10
_Read = Callable[[], Awaitable[bytes]]
#: Content types of a body whose first bytes tell what it is; curl --data-binary and urllib say the last.
_RAW_TYPES = frozenset({"", "application/octet-stream", "application/x-www-form-urlencoded"})
_HOW = "send the image as the body with Content-Type image/jpeg, or a multipart form with a field `file`"


@dataclass(frozen=True, slots=True)
class Upload:
    """What a body held, in order."""

    #: Encoded images, at least one; not looked at yet.
    images: tuple[bytes, ...]
    #: Name and text of the form's other fields.
    fields: tuple[tuple[str, str], ...] = ()


async def read_upload(request: web.Request, limits: Limits) -> Upload:
    """Read the whole body. ``limits`` bound its bytes, its images and the time it may take.

    Raises Problem: 400 no image or malformed, 408 too slow, 413 too large (at once where Content-Length
    says so, else while reading), 415 neither an image nor a form.
    """
    is_form = check_head(request, limits)
    try:
        async with asyncio.timeout(limits.body_timeout_s):
            if is_form:
                return await _read_form(request, limits)
            data = await _read_bounded(request.content.readany, limits.image_bytes, "The image")
    except TimeoutError:
        raise Problem.body_timeout(
            f"The body did not arrive within {limits.body_timeout_s:g} s; send a smaller image."
        ) from None
    except (web.RequestPayloadError, HttpProcessingError, ConnectionError) as error:
        raise Problem.bad_request("The body broke off or is not valid HTTP.", code="broken_body") from error
    if not data:
        raise Problem.bad_request(f"The request holds no image; {_HOW}.", code="no_image")
    return Upload((data,))


def check_head(request: web.Request, limits: Limits) -> bool:
    """Judge the body by the request's headers; returns whether it is a form. Raises Problem 413 or 415."""
    encoding = request.headers.get(hdrs.CONTENT_ENCODING, "identity").strip().lower()
    if encoding != "identity":
        raise Problem.unsupported_media(
            f"Content-Encoding is {encoding[:40]!r}; images are compressed already, send them as they are."
        )
    # content_type would say octet-stream where the header is absent or broken.
    kind = request.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower()
    is_form = kind == "multipart/form-data"
    if not (is_form or kind in _RAW_TYPES or kind.startswith("image/")):
        raise Problem.unsupported_media(f"Content-Type is {kind[:80]!r}; {_HOW}.")
    if is_form and "boundary=" not in request.headers[hdrs.CONTENT_TYPE].lower():
        raise Problem.bad_request(
            "Content-Type is multipart/form-data without a boundary; let the client write that header.",
            code="malformed_form",
        )
    most = limits.total_bytes + _FORM_OVERHEAD_BYTES if is_form else limits.image_bytes
    if request.content_length is not None and request.content_length > most:
        raise Problem.too_large(f"The body has {request.content_length} bytes; allowed are {most}.")
    return is_form


async def expect_continue(request: web.Request) -> web.Response | None:
    """Answer ``Expect: 100-continue``: a body that would be refused need not be sent at all."""
    if request.headers.get(hdrs.EXPECT, "").lower() != "100-continue":
        problem = Problem(417, "expectation_failed", "The only expectation known is 100-continue.")
        return problem.response(request_id(request))
    try:
        check_head(request, request.app[LIMITS])
    except Problem as problem:
        return problem.response(request_id(request))
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    # Only what follows is the answer; the framework does the same.
    request.writer.output_size = 0
    return None


async def _read_bounded(read: _Read, most_bytes: int, what: str) -> bytes:
    """Read to the end. Raises Problem 413 as soon as more than ``most_bytes`` have come."""
    chunks: list[bytes] = []
    size = 0
    while chunk := await read():
        size += len(chunk)
        if size > most_bytes:
            raise Problem.too_large(f"{what} has more than {most_bytes} bytes, which is the limit.")
        chunks.append(chunk)
    return b"".join(chunks)


async def _read_form(request: web.Request, limits: Limits) -> Upload:
    images: list[bytes] = []
    fields: list[tuple[str, str]] = []
    left_bytes = limits.total_bytes
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader):
                raise Problem.bad_request("A form within the form is not taken.", code="malformed_form")
            _check_part(part)
            if part.name != "file":
                if part.filename:
                    raise Problem.bad_request(
                        f"The form has a file in the field `{(part.name or '')[:40]}`; "
                        "images are taken from fields named `file`.",
                        code="no_image",
                        field="file",
                    )
                if len(fields) >= _MAX_FIELDS:
                    raise Problem.too_large(f"The form has more than {_MAX_FIELDS} fields.")
                fields.append((part.name or "", await _read_text(part)))
                continue
            if len(images) >= limits.max_images:
                raise Problem.too_large(
                    f"The form has more than {limits.max_images} fields `file`, which is the limit."
                )
            data = await _read_part(part, min(limits.image_bytes, left_bytes), f"Image {len(images)}")
            left_bytes -= len(data)
            images.append(data)
    # The parser reports malformed input by these, RuntimeError for an overlong charset included.
    except (ValueError, AssertionError, RuntimeError, LookupError, InvalidHeader) as error:
        raise Problem.bad_request(
            "The multipart body is malformed or ends too early.", code="malformed_form"
        ) from error
    if not images:
        raise Problem.bad_request(
            f"The form has no field `file`{_found(fields)}; {_HOW}.", code="no_image", field="file"
        )
    return Upload(tuple(images), tuple(fields))


def _check_part(part: BodyPartReader) -> None:
    """Refuse encodings that no client of today uses, rather than take them for pixels."""
    if hdrs.CONTENT_ENCODING in part.headers:
        raise Problem.unsupported_media(f"Part `{part.name}` has a Content-Encoding; send it as it is.")
    transfer = part.headers.get(hdrs.CONTENT_TRANSFER_ENCODING, "binary").lower()
    if transfer not in ("binary", "8bit", "7bit"):
        raise Problem.unsupported_media(
            f"Part `{part.name}` has Content-Transfer-Encoding {transfer[:40]!r}; send it as it is."
        )


async def _read_part(part: BodyPartReader, most_bytes: int, what: str) -> bytes:
    async def read() -> bytes:
        # An empty chunk may come before the end, where a boundary straddles two reads.
        while not part.at_eof():
            if chunk := await part.read_chunk(_CHUNK_BYTES):
                return chunk
        return b""

    return await _read_bounded(read, most_bytes, what)


async def _read_text(part: BodyPartReader) -> str:
    name = (part.name or "")[:100]
    data = await _read_part(part, _FIELD_BYTES, f"Field `{name}`")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Problem.invalid_parameter(name, "not UTF-8", "UTF-8 text") from None


def _found(fields: list[tuple[str, str]]) -> str:
    return f", found {', '.join(repr(name[:40]) for name, _ in fields[:5])}" if fields else ""
