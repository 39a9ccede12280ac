"""Reads the images of a request: a raw image, a multipart form, or JSON (`json_body`).

The `multipart` package parses the form: it buffers at most one header line or one boundary, and its work is
proportional to the bytes that arrive. Its strict mode refuses two things that only attackers and mail
programs send: text before the first boundary, and headers that span several lines.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from aiohttp import hdrs, web
from multipart import (
    MultipartError,
    MultipartSegment,
    PushMultipartParser,
    StrictParserError,
    parse_options_header,
)

from streamer.core.byte_budget import Holding
from streamer.http.body import BodyReader, PieceBuffer, media_type
from streamer.http.caller import identity_of
from streamer.http.problem_details import Problem, request_id
from streamer.imaging.image_header import Limits
from streamer.predict.image_url import ImageFetcher
from streamer.predict.json_body import STEP_BYTES, JsonBody

#: Key of the application's limits on requests.
LIMITS = web.AppKey("limits", Limits)
#: Key of the application's fetcher, which fetches images by URL.
FETCHER = web.AppKey("image_fetcher", ImageFetcher)
#: Bytes that a form may have besides its images: fields, part headers, boundaries.
OVERHEAD_BYTES = 64 << 10
_FIELD_BYTES = 8 << 10
_MAX_FIELDS = 64
#: Limit of RFC 2046, section 5.1.1.
_MAX_BOUNDARY_CHARS = 70
#: Limits of one part: enough for a `Content-Disposition` with a long file name, and for a few more headers.
_MAX_HEADER_BYTES = 2 << 10
_MAX_HEADERS = 8
#: Number of bytes allowed after the last boundary, where clients send a line end.
_MAX_EPILOGUE_BYTES = 1 << 10
#: Names of form fields with images. A name may end with `[]`, which some libraries append for lists.
IMAGE_FIELDS = ("file", "image", "images", "files")
#: How many field names an error message lists, and how many characters of each.
_SHOWN_FIELDS = 5
_SHOWN_CHARS = 40


def read_boundary(content_type: str) -> str:
    """Return the boundary of a form. Raises Problem 400 if it is missing or not allowed."""
    boundary: str = parse_options_header(content_type)[1].get("boundary", "")
    if not boundary:
        raise _malformed(
            "Content-Type is multipart/form-data without a boundary; let the client write that header."
        )
    if len(boundary) > _MAX_BOUNDARY_CHARS or not boundary.isascii() or not boundary.isprintable():
        raise _malformed(
            f"The boundary in Content-Type must be 1 to {_MAX_BOUNDARY_CHARS} printable ASCII characters."
        )
    return boundary


class FormReader:
    """Reads one form into ``images`` and ``fields``."""

    def __init__(self, boundary: str, limits: Limits) -> None:
        self._limits = limits
        self._first_line = b"--" + boundary.encode()
        self._parser = PushMultipartParser(
            boundary,
            max_header_size=_MAX_HEADER_BYTES,
            max_header_count=_MAX_HEADERS,
            max_segment_count=limits.max_images + _MAX_FIELDS + 1,
            strict=True,
        )
        self.images: list[bytes | memoryview] = []
        self.fields: list[tuple[str, str]] = []
        self._left_bytes = limits.total_bytes
        #: Whether bytes have arrived after the last boundary.
        self._complete = False
        self._epilogue_bytes = 0
        #: The part that is arriving, its bytes so far, their number, and the largest number allowed.
        self._segment: MultipartSegment | None = None
        self._buffer = PieceBuffer(0)
        self._part_bytes = 0
        self._part_limit = 0

    async def read(self, read: Callable[[], Awaitable[bytes]]) -> None:
        """Read the whole form. Raises Problem 400, 413 or 415, and what ``read`` raises."""
        first = True
        while piece := await read():
            # Even in strict mode, the parser ignores text before the boundary in the same piece.
            if first and piece.find(self._first_line) > len(b"\r\n"):
                raise _malformed()
            first = False
            if self._complete:
                self._skip(piece)
            else:
                self._feed(piece)
        if not self._is_over():
            raise _malformed()

    def _feed(self, piece: bytes) -> None:
        try:
            for event in self._parser.parse(piece):
                if isinstance(event, MultipartSegment):
                    self._begin(event)
                elif event is None:
                    self._end()
                else:
                    self._take(bytes(event))
        except StrictParserError as error:
            # The parser also raises this for bytes after the last boundary, and reports them in no other way.
            if not self._is_over():
                raise _malformed() from error
            self._complete = True
            self._skip(piece)
        except MultipartError as error:
            raise _malformed() from error

    def _is_over(self) -> bool:
        """Close the parser, which then takes no more bytes; return whether the last boundary has arrived."""
        try:
            self._parser.close()
        except MultipartError:
            return False
        return True

    def _skip(self, piece: bytes) -> None:
        self._epilogue_bytes += len(piece)
        if self._epilogue_bytes > _MAX_EPILOGUE_BYTES:
            raise _malformed()

    def _begin(self, segment: MultipartSegment) -> None:
        """Check the headers of a part, refuse encodings that no current client uses, prepare to read it."""
        name = (segment.name or "")[:_SHOWN_CHARS]
        if (segment.content_type or "").startswith("multipart/"):
            raise _malformed("A form within the form is not taken.")
        if segment.header(hdrs.CONTENT_ENCODING) is not None:
            raise Problem.unsupported_media(f"Part `{name}` has a Content-Encoding; send it as it is.")
        transfer = (segment.header(hdrs.CONTENT_TRANSFER_ENCODING) or "binary").lower()
        if transfer not in ("binary", "8bit", "7bit"):
            raise Problem.unsupported_media(
                f"Part `{name}` has Content-Transfer-Encoding {transfer[:_SHOWN_CHARS]!r}; send it as it is."
            )
        self._segment, self._part_bytes = segment, 0
        if self._is_image():
            if len(self.images) >= self._limits.max_images:
                raise Problem.too_large(
                    f"The form has more than {self._limits.max_images} images, which is the limit."
                )
            self._part_limit = min(self._limits.image_bytes, self._left_bytes)
            self._buffer = PieceBuffer(self._part_limit)
            return
        if segment.filename:
            raise Problem.bad_request(
                f"The form has a file in the field `{name}`; images are taken from fields named "
                f"{', '.join(IMAGE_FIELDS)}.",
                code="no_image",
                field="file",
            )
        if len(self.fields) >= _MAX_FIELDS:
            raise Problem.too_large(f"The form has more than {_MAX_FIELDS} fields.")
        self._part_limit = _FIELD_BYTES
        self._buffer = PieceBuffer(self._part_limit)

    def _take(self, piece: bytes) -> None:
        self._part_bytes += len(piece)
        if self._part_bytes > self._part_limit:
            raise Problem.too_large(
                f"{self._what()} has more than {self._part_limit} bytes, which is the limit."
            )
        self._buffer.add(piece)

    def _end(self) -> None:
        data = self._buffer.take()
        if self._is_image():
            self._left_bytes -= len(data)
            self.images.append(data)
            return
        name = self._name()
        try:
            self.fields.append((name, bytes(data).decode()))
        except UnicodeDecodeError:
            raise Problem.invalid_parameter(name[:100], "not UTF-8", "UTF-8 text") from None

    def _is_image(self) -> bool:
        return self._name().removesuffix("[]") in IMAGE_FIELDS

    def _name(self) -> str:
        return (self._segment.name or "") if self._segment is not None else ""

    def _what(self) -> str:
        return f"Image {len(self.images)}" if self._is_image() else f"Field `{self._name()[:100]}`"

    def found(self) -> str:
        """Return the names of the fields as the end of an error message; empty if there are none."""
        names = [repr(name[:_SHOWN_CHARS]) for name, _ in self.fields[:_SHOWN_FIELDS]]
        return f", found {', '.join(names)}" if names else ""


def _malformed(detail: str = "The multipart body is malformed or ends too early.") -> Problem:
    return Problem.bad_request(detail, code="malformed_form")


class BodyKind(StrEnum):
    """Says how a body holds its images; error messages use the values as names of the body."""

    #: The whole body is one image.
    IMAGE = "The image"
    FORM = "The form"
    JSON = "The JSON body"


#: Content types that do not name a format and are accepted for an image. urllib and `curl --data-binary` send
#: the last one.
_RAW_TYPES = frozenset({"", "application/octet-stream", "application/x-www-form-urlencoded"})
_BODY_KINDS = {"multipart/form-data": BodyKind.FORM, "application/json": BodyKind.JSON}
_HOW = (
    "send the image as the body with Content-Type image/jpeg, a multipart form with a field `file`, or JSON "
    "with `image` in base64"
)
#: Base64 text is a third longer than the image; line breaks and escaped characters add some more.
_JSON_BYTES_PER_IMAGE_BYTE = 1.5
#: How many bytes of a body that is not declared as JSON are searched for the beginning of JSON, and the bytes
#: with which JSON, white space or a byte order mark begins.
_JSON_HEAD_BYTES = 16
_JSON_BEGINNINGS = frozenset(b"{[\xef \t\r\n")


@dataclass(frozen=True, slots=True)
class Upload:
    """Holds the content of a body, in the order in which it was sent."""

    #: Encoded images, at least one; not checked yet.
    images: tuple[bytes | memoryview, ...]
    #: Name and text of the other fields of a form or a JSON object.
    fields: tuple[tuple[str, str], ...] = ()
    #: Bytes of the images that were fetched from URLs; the length of the body does not include them.
    fetched_bytes: int = 0
    #: The problem of each image that could not be fetched, by its position in ``images``.
    failed: Mapping[int, Problem] = field(default_factory=dict)


async def read_upload(request: web.Request, limits: Limits, holding: Holding) -> Upload:
    """Read the whole body and charge it to ``holding``; ``limits`` apply to its bytes, images and duration.

    Raises Problem: 400 if it has no image or is malformed, 408 if it is too slow, 413 if it is too large (at
    once if Content-Length says so, else while reading), 415 if it is neither an image nor a form nor JSON,
    422 if its only image cannot be fetched from its URL, 503 if the byte budget has no room.
    """
    kind = check_head(request, limits)
    body = BodyReader(
        request,
        holding,
        most_bytes=_most_bytes(limits, kind),
        limit_s=limits.body_timeout_s,
        what=kind,
        hint="; send a smaller image",
    )
    if kind is BodyKind.FORM:
        return await _read_form(read_boundary(request.headers[hdrs.CONTENT_TYPE]), body, limits)
    if kind is BodyKind.JSON:
        return await _read_json(request, body, limits, holding)
    data = await body.read_image()
    if not data:
        raise Problem.bad_request(f"The request holds no image; {_HOW}.", code="no_image")
    # No image begins with one of these bytes, so images are not examined further.
    if data[0] in _JSON_BEGINNINGS and bytes(data[:_JSON_HEAD_BYTES]).lstrip(
        b"\xef\xbb\xbf \t\r\n"
    ).startswith((b"{", b"[")):
        raise Problem.unsupported_media(
            f"Content-Type is {media_type(request)[:80]!r}, and the body looks like JSON; send JSON as "
            "application/json."
        )
    return Upload((data,))


async def _read_form(boundary: str, body: BodyReader, limits: Limits) -> Upload:
    form = FormReader(boundary, limits)
    await form.read(body.read)
    if not form.images:
        raise Problem.bad_request(
            f"The form has no field `file`{form.found()}; {_HOW}.", code="no_image", field="file"
        )
    return Upload(tuple(form.images), tuple(form.fields))


async def _read_json(request: web.Request, body: BodyReader, limits: Limits, holding: Holding) -> Upload:
    """Read a JSON body, and fetch the images that it names by URL.

    ``holding`` is charged only for what is kept of the body, because images are smaller than their base64
    text.
    """
    content, before_bytes = JsonBody(limits), holding.held_bytes
    while piece := await body.read():
        for start in range(0, len(piece), STEP_BYTES):
            content.feed(piece[start : start + STEP_BYTES])
            await asyncio.sleep(0)
        holding.give_back(max(0, holding.held_bytes - before_bytes - content.held_bytes))
    content.finish()
    fetcher, client = request.app[FETCHER], identity_of(request).name
    filled = await fetcher.fill_in(content.images, client, limits, holding)
    return Upload(tuple(filled.images), tuple(content.fields), filled.fetched_bytes, filled.failed)


def _most_bytes(limits: Limits, kind: BodyKind) -> int:
    if kind is BodyKind.JSON:
        return int(limits.total_bytes * _JSON_BYTES_PER_IMAGE_BYTE) + OVERHEAD_BYTES
    return limits.total_bytes + OVERHEAD_BYTES if kind is BodyKind.FORM else limits.image_bytes


def check_head(request: web.Request, limits: Limits) -> BodyKind:
    """Check the request's headers and return how its body holds images. Raises Problem 400, 413 or 415."""
    encoding = request.headers.get(hdrs.CONTENT_ENCODING)
    if encoding is not None and (encoding := encoding.strip().lower()) != "identity":
        raise Problem.unsupported_media(
            f"Content-Encoding is {encoding[:40]!r}; images are compressed already, send them as they are."
        )
    media = media_type(request)
    kind = _BODY_KINDS.get(media, BodyKind.IMAGE)
    if kind is BodyKind.IMAGE and not (media in _RAW_TYPES or media.startswith("image/")):
        raise Problem.unsupported_media(f"Content-Type is {media[:80]!r}; {_HOW}.")
    if kind is BodyKind.FORM:
        read_boundary(request.headers[hdrs.CONTENT_TYPE])
    most, announced = _most_bytes(limits, kind), request.content_length
    if announced is not None and announced > most:
        raise Problem.too_large(f"The body has {announced} bytes; allowed are {most}.")
    return kind


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
