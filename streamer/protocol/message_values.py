"""Checks the values of a decoded control message, in bounded time and memory. Pure.

The path of a value is built only for a value that is refused. Building the paths of all values could take
time and memory proportional to the message's length times its number of values.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

#: Largest number of nested maps and lists in a message; messages of the protocol have four levels.
MAX_DEPTH = 32
#: Largest number of characters that an answer quotes of a client's text, and of a path.
MAX_SHOWN_CHARS = 60
MAX_PATH_CHARS = 200


class ProtocolError(Exception):
    """A message or frame breaks ``detect.v1``. ``field`` names the wrong field, or is empty."""

    def __init__(self, message: str, *, code: str = "malformed", field: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.field = field


class _Branch(NamedTuple):
    """Holds a map or list that is still to be checked, and its place in the message."""

    value: dict[Any, Any] | list[Any]
    parent: _Branch | None
    #: Key or index of this value in the parent.
    key: object
    depth: int


def check_values(message: dict[str, Any], most_values: int | None) -> None:
    """Check that every value can be sent back, and that there are at most ``most_values`` (None: no limit).

    Raises ProtocolError, which names the field of a wrong value. The function is not recursive, because the
    sender chooses the depth.
    """
    waiting = [_Branch(message, None, "", 0)]
    left = most_values
    while waiting:
        branch = waiting.pop()
        value = branch.value
        if left is not None:
            left -= len(value)
            if left < 0:
                raise ProtocolError(f"the message holds more than {most_values} values", code="too_large")
        is_map = isinstance(value, dict)
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            if is_map and not _names_a_field(key):
                path = _path(branch)
                raise ProtocolError(
                    f"field `{path}` has a key that is no text: {show(key)}",
                    code="invalid",
                    field=path or "message",
                )
            fault = _fault(item, branch.depth + 1)
            if fault:
                path = _path(_Branch([], branch, key, branch.depth + 1))
                raise ProtocolError(f"field `{path}` {fault}", code="invalid", field=path)
            if item and isinstance(item, dict | list):
                waiting.append(_Branch(item, branch, key, branch.depth + 1))


def _fault(value: object, depth: int) -> str:
    """Return what is wrong with a value itself, ignoring the values in it; empty if nothing is wrong."""
    if isinstance(value, str):
        return "" if is_text(value) else "is not valid text"
    if isinstance(value, float):
        return "" if math.isfinite(value) else "is not a finite number"
    if isinstance(value, int):
        return "" if -(1 << 63) <= value < 1 << 64 else "is a whole number of more than 64 bits"
    if isinstance(value, dict | list):
        return "" if depth < MAX_DEPTH else f"is nested deeper than {MAX_DEPTH} levels"
    if value is None or isinstance(value, bytes):
        return ""
    return f"is a {type(value).__name__}, which no message holds"


def _path(branch: _Branch) -> str:
    """Return the path of a branch, such as ``streams[0].id``. A long path keeps only its end."""
    parts: list[str] = []
    at: _Branch | None = branch
    while at is not None and at.parent is not None:
        parts.append(f"[{at.key}]" if isinstance(at.parent.value, list) else f".{shorten(str(at.key))}")
        at = at.parent
    path = "".join(reversed(parts)).removeprefix(".")
    return path if len(path) <= MAX_PATH_CHARS else "…" + path[1 - MAX_PATH_CHARS :]


def _names_a_field(key: object) -> bool:
    return isinstance(key, int) or (isinstance(key, str) and is_text(key))


def shorten(text: str, most_chars: int = MAX_SHOWN_CHARS) -> str:
    """Return ``text``, cut to ``most_chars`` with an ellipsis if it is longer."""
    return text if len(text) <= most_chars else text[: most_chars - 1] + "…"


def show(value: object) -> str:
    """Return a short form of a client's value for an answer, without first building its long form."""
    if isinstance(value, str | bytes):
        return repr(value[:MAX_SHOWN_CHARS]) + ("…" if len(value) > MAX_SHOWN_CHARS else "")
    if isinstance(value, dict | list | tuple):
        kind = "map" if isinstance(value, dict) else "list"
        return f"a {kind} of {len(value)}"
    if isinstance(value, int) and value.bit_length() > 128:
        return f"a whole number of {value.bit_length()} bits"
    return shorten(repr(value))


def is_text(value: str) -> bool:
    """Return whether the string can be encoded; JSON may contain half of a surrogate pair."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def path_of(location: tuple[int | str, ...]) -> str:
    """Return the path of a field, such as ``streams[0].id``, from the location of an error."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif not _is_branch(part):
            path += f".{shorten(part)}" if path else shorten(part)
    return path


def _is_branch(part: object) -> bool:
    """Whether a location part names a branch of a union instead of a field."""
    return isinstance(part, str) and (part in {"str", "int", "float", "bytes"} or "[" in part)
