"""Defines the text of a printed code, and validates what a decoder says about codes. Pure.

Whoever prints a code chooses its text, and a decoder may have been taken over by the image. So nothing here
is trusted: length, characters and form are checked, and nothing is logged.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

#: Most characters of a text. A longer one is left out: a part of a text would be a wrong text.
MAX_TEXT_CHARS = 1024
#: Most codes that are read in one image.
MAX_CODES = 32
#: Size of the memory for a request and its answer: all texts at their full length, with characters of up to
#: four bytes or escaped control characters of six.
READING_BYTES = MAX_CODES * MAX_TEXT_CHARS * 6 + (64 << 10)

#: Control characters except tab and line feed, surrogates, and the marks that change the direction of the
#: text around them: with these, a text could show something else than it contains, or steer a terminal.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_FORMAT = re.compile(r"[A-Za-z0-9][A-Za-z0-9 /+-]{0,31}")


class MalformedReading(Exception):
    """A reading that our own code cannot have sent; the text says what is wrong with it, without quoting."""


class CodeText(NamedTuple):
    """What a code contains."""

    text: str
    #: Symbology, such as `QR Code` or `EAN-13`.
    format: str


def clean_text(text: str) -> str:
    """Return a text with U+FFFD in place of characters that are not shown as themselves."""
    return _UNSAFE.sub("\ufffd", text.replace("\r\n", "\n"))


def pack_request(boxes: list[list[float]], until_s: float) -> bytes:
    """Return the request to read the codes in ``boxes``, until a time in monotonic seconds."""
    return json.dumps({"boxes": boxes, "until": until_s}).encode()


def unpack_reading(data: bytes, count: int) -> list[CodeText | None]:
    """Return what a decoder has read in ``count`` boxes. Raises MalformedReading."""
    try:
        entries = json.loads(data)
    except (ValueError, RecursionError):  # name no cause: it would quote the text
        raise MalformedReading("a reading that does not parse") from None
    if not isinstance(entries, list) or len(entries) != count:
        raise MalformedReading("a reading of another number of codes")
    return [None if entry is None else _code_text(entry) for entry in entries]


def _code_text(entry: object) -> CodeText:
    match entry:
        case [str() as text, str() as name] if 0 < len(text) <= MAX_TEXT_CHARS and _FORMAT.fullmatch(name):
            return CodeText(clean_text(text), name)
    raise MalformedReading("a code without text or symbology")
