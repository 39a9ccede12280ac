"""The manifest: what the user says about a model, in NAME.json beside NAME.onnx; `family` fills the gaps."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from inference.errors import ModelRefused
from inference.model import Family, Placement

MAX_BYTES = 1 << 20
MAX_LABELS = 10_000
MAX_TEXT = 200
MIN_INPUT_PX = 32
MAX_INPUT_PX = 4096

Choice = TypeVar("Choice", bound=StrEnum)
Triple = tuple[float, float, float]


class Colour(StrEnum):
    """Order of the colour planes that the model wants."""

    RGB = "rgb"
    BGR = "bgr"


class Activation(StrEnum):
    """How a detr model's logits become scores; with softmax the last class means "no object"."""

    SIGMOID = "sigmoid"
    SOFTMAX = "softmax"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Every field is None where the manifest, or the file itself, is absent: then it is probed.

    A model sees ``(pixel * scale - mean) / std`` per plane, the planes in ``colour`` order.
    """

    name: str | None = None
    family: Family | None = None
    #: Width and height of the model input, in pixels.
    input: tuple[int, int] | None = None
    placement: Placement | None = None
    pad_value: int | None = None
    colour: Colour | None = None
    scale: float | None = None
    mean: Triple | None = None
    std: Triple | None = None
    activation: Activation | None = None
    labels: tuple[str, ...] | None = None
    #: Lower-case hex digest that the model file must have.
    sha256: str | None = None
    conf_threshold: float | None = None
    batch_max: int | None = None
    licence: str | None = None


def manifest_path(model_path: Path) -> Path:
    """Return where the manifest of a model file lies."""
    return model_path.with_suffix(".json")


def read_manifest(model_path: Path) -> Manifest:
    """Read the manifest beside ``model_path``; an absent one is an empty one.

    Raises ModelRefused naming the manifest, the field, what was found and what is allowed.
    """
    path = manifest_path(model_path)
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return Manifest()
    except OSError as error:
        raise ModelRefused(
            str(path),
            expected="a readable file",
            found=error.strerror or str(error),
            fix="Check its permissions.",
        ) from error
    if len(data) > MAX_BYTES:
        raise ModelRefused(
            str(path),
            expected=f"at most {MAX_BYTES} bytes",
            found="more",
            fix="A manifest holds settings, not weights.",
        )
    return parse_manifest(data, str(path))


def parse_manifest(data: bytes, path: str) -> Manifest:
    """Parse a manifest's bytes; ``path`` is for messages. Raises ModelRefused as `read_manifest` does."""
    try:
        values = json.loads(data.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ModelRefused(
            path,
            expected="a JSON object in UTF-8",
            found=f"something that does not parse: {error}",
            fix='Correct it, or remove it to have everything probed; {"labels": ["cat", "dog"]} suffices.',
        ) from error
    if not isinstance(values, dict):
        raise ModelRefused(
            path, expected="a JSON object", found=_named(values), fix='Write {"labels": [...]} and the like.'
        )
    known: dict[str, Any] = {}
    for field, value in values.items():
        parse = _PARSERS.get(field)
        if parse is None:
            raise ModelRefused(
                path,
                expected=f"only the fields {', '.join(_PARSERS)}",
                found=f"field `{field[:60]}`",
                fix="Correct its spelling or remove it.",
            )
        try:
            known[field] = parse(value)
        except ValueError as error:
            raise ModelRefused(
                path, expected=f"field `{field}` to be {error}", found=_shown(value), fix="Correct the field."
            ) from None
    return Manifest(**known)


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def _named(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _shown(value: object) -> str:
    text = json.dumps(value)
    return f"{_named(value)}, {text if len(text) <= 80 else text[:77] + '...'}"


# Each parser returns the value or raises ValueError with a text that says what is allowed.


def _text(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT or not value.isprintable():
        raise ValueError(f"printable text of 1 to {MAX_TEXT} characters")
    return value


def _choice(kind: type[Choice]) -> Callable[[object], Choice]:
    def parse(value: object) -> Choice:
        for member in kind:
            if value == member.value:
                return member
        raise ValueError("one of " + ", ".join(f'"{member.value}"' for member in kind))

    return parse


def _number(low: float, high: float) -> Callable[[object], float]:
    def parse(value: object) -> float:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        if not fits or not math.isfinite(value) or not low <= value <= high:  # type: ignore[arg-type,operator]
            raise ValueError(f"a number from {low:g} to {high:g}")
        return float(value)  # type: ignore[arg-type]

    return parse


def _integer(low: int, high: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return value

    return parse


def _triple(low: float, high: float) -> Callable[[object], Triple]:
    number = _number(low, high)

    def parse(value: object) -> Triple:
        try:
            first, second, third = map(number, value if isinstance(value, list) else ())
        except ValueError:
            message = (
                f"a list of three numbers from {low:g} to {high:g}, one per plane in the model's colour order"
            )
            raise ValueError(message) from None
        return first, second, third

    return parse


def _size(value: object) -> tuple[int, int]:
    side = _integer(MIN_INPUT_PX, MAX_INPUT_PX)
    fields = value if isinstance(value, dict) and set(value) == {"width", "height"} else {}
    try:
        return side(fields.get("width")), side(fields.get("height"))
    except ValueError:
        message = (
            f'an object {{"width": w, "height": h}} of whole numbers from {MIN_INPUT_PX} to {MAX_INPUT_PX}'
        )
        raise ValueError(message) from None


def _labels(value: object) -> tuple[str, ...]:
    allowed = f"a list of 1 to {MAX_LABELS} different class names, each of 1 to {MAX_TEXT} characters"
    if not isinstance(value, list) or not 0 < len(value) <= MAX_LABELS:
        raise ValueError(allowed)
    try:
        labels = tuple(map(_text, value))
    except ValueError:
        raise ValueError(allowed) from None
    if len(set(labels)) < len(labels):
        raise ValueError(allowed)
    return labels


def _sha256(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-fA-F]{64}", value):
        raise ValueError("64 hexadecimal digits")
    return value.lower()


_PARSERS: dict[str, Callable[[object], Any]] = {
    "name": _text,
    "family": _choice(Family),
    "input": _size,
    "placement": _choice(Placement),
    "pad_value": _integer(0, 255),
    "colour": _choice(Colour),
    "scale": _number(1e-6, 1e6),
    "mean": _triple(-1e6, 1e6),
    "std": _triple(1e-6, 1e6),
    "activation": _choice(Activation),
    "labels": _labels,
    "sha256": _sha256,
    "conf_threshold": _number(0.0, 1.0),
    "batch_max": _integer(1, 256),
    "licence": _text,
}
