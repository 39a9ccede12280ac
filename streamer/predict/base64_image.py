"""Decodes an image from base64 or a data URL as it arrives; `json_body` reads the body around it."""

from __future__ import annotations

import binascii
import re

from streamer.http.body import PieceBuffer
from streamer.http.problem_details import Problem

#: How JSON writers may escape the characters of base64, and line breaks within it.
_ESCAPES = (
    *(
        (b"\\" + letter, b"")
        for letter in (b"n", b"r", b"t", b"u000a", b"u000A", b"u000d", b"u000D", b"u0020")
    ),
    (b"\\/", b"/"),
    *((b"\\u002" + digit, b"/") for digit in (b"f", b"F")),
    *((b"\\u002" + digit, b"+") for digit in (b"b", b"B")),
    *((b"\\u003" + digit, b"=") for digit in (b"d", b"D")),
)
_ESCAPE_BYTES = 6
#: The base64 alphabet for URLs (RFC 4648 section 5) uses other characters for two values.
_STANDARD = bytes.maketrans(b"-_", b"+/")
_WHITE_SPACE = b" \t\r\n"
#: `data:[type/subtype][;name=value…];base64,` (RFC 2397).
_DATA_URL = re.compile(rb"data:([\w.+-]+/[\w.+-]+)?((?:;[\w.-]+=[^;,]*)*)(;base64)?,", re.IGNORECASE)
_DATA_URL_HEAD_BYTES = 256


class NotBase64(Exception):
    """A string is not base64; the text says why, and continues a sentence that begins with its field."""


class Base64Image:
    """Decodes one string, which arrives in pieces, from base64 or a data URL.

    ``most_bytes`` limits the decoded image. The first piece must contain the whole head of a data URL.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._buffer = PieceBuffer(most_bytes)
        #: Incomplete escape sequence at the end of the last piece, and characters that do not yet fill a
        #: group of four.
        self._escape = b""
        self._rest = b""
        self._begun = self._padded = False
        #: Media type of a data URL in lower case; empty if there is none.
        self.media_type = ""
        #: Number of bytes decoded so far.
        self.size = 0

    def feed(self, piece: bytes) -> None:
        """Decode a piece of the string as it is written in JSON. Raises NotBase64, or Problem 413."""
        text = self._escape + piece
        self._escape = b""
        if b"\\" in text:
            last = text.rfind(b"\\")
            if len(text) - last < (_ESCAPE_BYTES if text[last + 1 : last + 2] in (b"", b"u") else 2):
                text, self._escape = text[:last], text[last:]
            for escaped, meant in _ESCAPES:
                text = text.replace(escaped, meant)
        if not self._begun:
            self._begun = True
            text = self._strip_head(text)
        self._decode(self._rest + text.translate(_STANDARD, _WHITE_SPACE))

    def _strip_head(self, text: bytes) -> bytes:
        """Return the base64 part of the string."""
        if text[:5].lower() != b"data:":
            return text
        match = _DATA_URL.match(text[:_DATA_URL_HEAD_BYTES])
        if match is None:
            raise NotBase64("is a data URL without `TYPE/SUBTYPE;base64,` at its start")
        if match[3] is None:
            raise NotBase64("is a data URL without `;base64`")
        self.media_type = (match[1] or b"").decode().lower()
        return text[match.end() :]

    def _decode(self, text: bytes) -> None:
        whole = len(text) & ~3
        self._rest = text[whole:]
        if not text:
            return
        if self._padded:
            raise NotBase64("goes on after the end of its base64")
        try:
            data = binascii.a2b_base64(text[:whole], strict_mode=True)
        except binascii.Error:
            raise NotBase64(f"is no base64: {_shown(text)}") from None
        self._padded = text[:whole].endswith(b"=")
        self.size += len(data)
        if self.size > self._most_bytes:
            raise Problem.too_large(
                f"An image of the body has more than {self._most_bytes} bytes, which is the limit."
            )
        if data:
            self._buffer.add(data)

    def take(self) -> bytes | memoryview:
        """End the string, whose padding may be missing, and return the image.

        Raises NotBase64, or Problem 413.
        """
        if self._escape:
            raise NotBase64("ends within an escape sequence")
        if self._rest:
            if len(self._rest.rstrip(b"=")) == 1:
                raise NotBase64("is cut off: its last group of four characters has only one")
            self._decode(self._rest.ljust(4, b"="))
        return self._buffer.take()


def _shown(text: bytes) -> str:
    """Return the beginning of the part that is not base64, for an error message."""
    bad = re.search(rb"[^A-Za-z0-9+/=]", text)
    start = bad.start() if bad else 0
    return f"it has {text[start : start + 20].decode(errors='replace')!r}"
