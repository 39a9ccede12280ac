"""Parses single JSON fields in files that people write; each parser returns the value or raises ValueError.

The manifest and the list of known models use the parsers. The text of each ValueError says what is allowed,
as the end of a sentence that begins with "expected the field to be", such as "a whole number from 1 to 256".
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from enum import StrEnum
from typing import Any, NoReturn, TypeVar

from inference.models.class_names import NAMED_LISTS

MAX_TEXT = 200
#: Most outputs of which the boxes of a model are read.
MAX_OUTPUTS = 4
MAX_LABELS = 10_000
#: Most outputs of which the boxes of a model are read.
MAX_OUTPUTS = 4
MAX_PARENTS = 100
MIN_INPUT_PX = 32
MAX_INPUT_PX = 4096

Choice = TypeVar("Choice", bound=StrEnum)
Parser = Callable[[object], Any]
Triple = tuple[float, float, float]


def read_object(data: bytes) -> dict[str, Any]:
    """Parse a JSON object in UTF-8. Raises ValueError with a text that says what was found instead."""
    try:
        values = json.loads(data.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"something that does not parse: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(name_of(values))  # noqa: TRY004 - one error type for every fault of a file
    return values


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def name_of(value: object) -> str:
    """Return the name of the JSON type of a value, for messages."""
    names = {dict: "an object", list: "a list", str: "text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def shown(value: object) -> str:
    """Return type and shortened value, for messages."""
    text = json.dumps(value)
    return f"{name_of(value)}, {text if len(text) <= 80 else text[:77] + '...'}"


def text(value: object) -> str:
    """Return one line of text."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT or not value.isprintable():
        raise ValueError(f"printable text of 1 to {MAX_TEXT} characters")
    return value


def choice(kind: type[Choice]) -> Callable[[object], Choice]:
    """Return a parser of an enumeration's values."""

    def parse(value: object) -> Choice:
        for member in kind:
            if value == member.value:
                return member
        raise ValueError("one of " + ", ".join(f'"{member.value}"' for member in kind))

    return parse


def number(low: float, high: float) -> Callable[[object], float]:
    """Return a parser of numbers in a range, both ends included."""

    def parse(value: object) -> float:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        if not fits or not math.isfinite(value) or not low <= value <= high:  # type: ignore[arg-type,operator]
            raise ValueError(f"a number from {low:g} to {high:g}")
        return float(value)  # type: ignore[arg-type]

    return parse


def integer(low: int, high: int) -> Callable[[object], int]:
    """Return a parser of whole numbers in a range, both ends included."""

    def parse(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return value

    return parse


def triple(low: float, high: float) -> Callable[[object], Triple]:
    """Return a parser of three numbers, one for each colour plane, or of one number for all planes."""
    plane = number(low, high)

    def parse(value: object) -> Triple:
        try:
            numbers = value if isinstance(value, list) else ()
            first, second, third = map(plane, numbers * 3 if len(numbers) == 1 else numbers)
        except ValueError:
            message = (
                f"a list of three numbers from {low:g} to {high:g}, one per plane in the model's colour "
                "order, or of one number for all planes"
            )
            raise ValueError(message) from None
        return first, second, third

    return parse


def size(value: object) -> tuple[int, int]:
    """Return width and height of a model input, in pixels."""
    side = integer(MIN_INPUT_PX, MAX_INPUT_PX)
    fields = value if isinstance(value, dict) and set(value) == {"width", "height"} else {}
    try:
        return side(fields.get("width")), side(fields.get("height"))
    except ValueError:
        message = (
            f'an object {{"width": w, "height": h}} of whole numbers from {MIN_INPUT_PX} to {MAX_INPUT_PX}'
        )
        raise ValueError(message) from None


def labels(value: object) -> tuple[str, ...]:
    """Return class names from a list of them, or from the name of a list in `NAMED_LISTS`.

    Names may occur more than once; `class_names.number_apart` makes them different.
    """
    if isinstance(value, str) and value in NAMED_LISTS:
        return NAMED_LISTS[value]
    allowed = (
        f"a list of 1 to {MAX_LABELS} class names, each of 1 to {MAX_TEXT} characters, or one of "
        + ", ".join(f'"{name}"' for name in NAMED_LISTS)
    )
    if not isinstance(value, list) or not 0 < len(value) <= MAX_LABELS:
        raise ValueError(allowed)
    try:
        return tuple(map(text, value))
    except ValueError:
        raise ValueError(allowed) from None


def output_names(value: object) -> tuple[str, ...]:
    """Return names of outputs from a list of them, or from a single name."""
    listed = value if isinstance(value, list) else [value]
    try:
        names = tuple(map(text, listed))
    except ValueError:
        names = ()
    if not 0 < len(names) <= MAX_OUTPUTS:
        raise ValueError(f"the name of an output, or a list of 1 to {MAX_OUTPUTS} of them")
    return names


def code_classes(value: object) -> tuple[str, ...]:
    """Return labels from a list of them, which may be empty."""
    allowed = f"a list of labels, each of 1 to {MAX_TEXT} characters, or an empty list"
    if not isinstance(value, list) or len(value) > MAX_LABELS:
        raise ValueError(allowed)
    try:
        return tuple(map(text, value))
    except ValueError:
        raise ValueError(allowed) from None


def boolean(value: object) -> bool:
    """Return a truth value."""
    if not isinstance(value, bool):
        raise ValueError("true or false")  # noqa: TRY004 - parsers raise ValueError
    return value


def sha256(value: object) -> str:
    """Return a digest in lower case."""
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-fA-F]{64}", value):
        raise ValueError("64 hexadecimal digits")
    return value.lower()


def record(value: object) -> dict[str, Any]:
    """Return an object of any fields, which only people and tools read."""
    if not isinstance(value, dict):
        raise ValueError("an object")  # noqa: TRY004 - see `read_object`
    return value


def parents(value: object) -> tuple[dict[str, Any], ...]:
    """Return the models from which a model was made; each has `name` and `sha256`."""
    listed = value if isinstance(value, list) else [None]
    good = [entry for entry in listed if isinstance(entry, dict) and set(entry) == {"name", "sha256"}]
    try:
        found = tuple({"name": text(entry["name"]), "sha256": sha256(entry["sha256"])} for entry in good)
    except ValueError:
        found = ()
    if len(found) < len(listed) or len(listed) > MAX_PARENTS:
        raise ValueError(f"a list of at most {MAX_PARENTS} objects with `name` and `sha256`")
    return found
