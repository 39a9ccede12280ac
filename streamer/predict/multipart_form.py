"""Takes images and fields out of a multipart form as it arrives; everything in it is bounded.

The parser is the `multipart` package's: it keeps no more than one header line or one boundary, and its work
is proportional to the bytes that come. Its strict mode refuses what only attackers and mail programs write:
text before the first boundary, and headers over several lines.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import hdrs
from multipart import (
    MultipartError,
    MultipartSegment,
    PushMultipartParser,
    StrictParserError,
    parse_options_header,
)

from streamer.http.problem_details import Problem
from streamer.imaging.limits import Limits

#: Bytes of a form beyond its images: fields, part headers, boundaries.
OVERHEAD_BYTES = 64 << 10
_FIELD_BYTES = 8 << 10
_MAX_FIELDS = 64
#: RFC 2046 section 5.1.1.
_MAX_BOUNDARY_CHARS = 70
#: Of a part: a disposition with a long file name; a handful of headers.
_MAX_HEADER_BYTES = 2 << 10
_MAX_HEADERS = 8
#: After the last boundary; clients send a line end there.
_MAX_EPILOGUE_BYTES = 1 << 10
#: Names that an error repeats.
_SHOWN_FIELDS = 5
_SHOWN_CHARS = 40


def read_boundary(content_type: str) -> str:
    """Return the boundary of a form. Raises Problem 400 when there is none, or none that may be."""
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
    """One form: ``feed`` it what arrives, then ``finish``."""

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
        self.images: list[bytes] = []
        self.fields: list[tuple[str, str]] = []
        self._left_bytes = limits.total_bytes
        #: Whether bytes have come after the last boundary.
        self._complete = False
        self._epilogue_bytes = 0
        #: The part that arrives, its pieces, and how many bytes it may have.
        self._segment: MultipartSegment | None = None
        self._pieces: list[bytes] = []
        self._part_bytes = 0
        self._part_limit = 0

    async def read(self, read: Callable[[], Awaitable[bytes]]) -> None:
        """Take the whole form in. Raises Problem 400, 413 or 415, or whatever ``read`` raises."""
        first = True
        while piece := await read():
            # The parser's strict mode forgives what stands before the boundary in the same piece.
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
            # Also raised for what follows the last boundary, which the parser tells in no other way.
            if not self._is_over():
                raise _malformed() from error
            self._complete = True
            self._skip(piece)
        except MultipartError as error:
            raise _malformed() from error

    def _is_over(self) -> bool:
        """Whether the last boundary has come; the parser takes nothing more after the question."""
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
        """Judge a part by its headers; encodings that no client of today uses are refused."""
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
        self._segment, self._pieces, self._part_bytes = segment, [], 0
        if segment.name == "file":
            if len(self.images) >= self._limits.max_images:
                raise Problem.too_large(
                    f"The form has more than {self._limits.max_images} fields `file`, which is the limit."
                )
            self._part_limit = min(self._limits.image_bytes, self._left_bytes)
            return
        if segment.filename:
            raise Problem.bad_request(
                f"The form has a file in the field `{name}`; images are taken from fields named `file`.",
                code="no_image",
                field="file",
            )
        if len(self.fields) >= _MAX_FIELDS:
            raise Problem.too_large(f"The form has more than {_MAX_FIELDS} fields.")
        self._part_limit = _FIELD_BYTES

    def _take(self, piece: bytes) -> None:
        self._part_bytes += len(piece)
        if self._part_bytes > self._part_limit:
            raise Problem.too_large(
                f"{self._what()} has more than {self._part_limit} bytes, which is the limit."
            )
        self._pieces.append(piece)

    def _end(self) -> None:
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces = []
        if self._is_image():
            self._left_bytes -= len(data)
            self.images.append(data)
            return
        name = self._name()
        try:
            self.fields.append((name, data.decode()))
        except UnicodeDecodeError:
            raise Problem.invalid_parameter(name[:100], "not UTF-8", "UTF-8 text") from None

    def _is_image(self) -> bool:
        return self._segment is not None and self._segment.name == "file"

    def _name(self) -> str:
        return (self._segment.name or "") if self._segment is not None else ""

    def _what(self) -> str:
        return f"Image {len(self.images)}" if self._is_image() else f"Field `{self._name()[:100]}`"

    def found(self) -> str:
        """Return which fields there are, as the end of a sentence; empty for none."""
        names = [repr(name[:_SHOWN_CHARS]) for name, _ in self.fields[:_SHOWN_FIELDS]]
        return f", found {', '.join(names)}" if names else ""


def _malformed(detail: str = "The multipart body is malformed or ends too early.") -> Problem:
    return Problem.bad_request(detail, code="malformed_form")
