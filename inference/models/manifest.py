"""Reads the manifest NAME.json beside NAME.onnx, in which users describe a model; `family` fills the gaps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from inference.core.errors import ModelRefused
from inference.models import fields
from inference.models.fields import Parser, Triple
from inference.models.model import Family, Placement

MAX_BYTES = 1 << 20


class Colour(StrEnum):
    """Names the orders of the colour planes in the input of a model."""

    RGB = "rgb"
    BGR = "bgr"
    #: A single plane; for models with an input of one plane only.
    GREY = "grey"


class Activation(StrEnum):
    """Says how a detr model's logits become scores; with softmax, the last class means "no object"."""

    SIGMOID = "sigmoid"
    SOFTMAX = "softmax"
    #: The outputs are scores already.
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Holds the fields of a manifest. A field that the user does not set is None.

    For such a field the service finds the value in the model, or uses a default.

    The input of the model is ``(pixel * scale - mean) / std`` per plane, the planes in ``colour`` order.
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
    #: The id of the class that has the first label: 0 or 1. For models that output class ids.
    first_class_id: int | None = None
    #: The outputs to read, where several have the same shape.
    output: tuple[str, ...] | None = None
    #: Labels of the classes whose boxes are printed codes that the service may read.
    code_classes: tuple[str, ...] | None = None
    #: Lower-case hex digest that the model file must have.
    sha256: str | None = None
    conf_threshold: float | None = None
    agnostic_nms: bool | None = None
    batch_max: int | None = None
    #: Licence of the weights, preferably its SPDX identifier. For information only.
    licence: str | None = None
    #: Where the weights come from, usually a URL. For information only.
    source: str | None = None
    #: The models from which this one was trained or made, each with name and sha256. For information only.
    parents: tuple[Mapping[str, Any], ...] | None = None
    #: How it was trained: digest of the set, seed, versions. For information only.
    training: Mapping[str, Any] | None = None
    #: What it scored, and on which pictures. For information only.
    metrics: Mapping[str, Any] | None = None


def manifest_path(model_path: Path) -> Path:
    """Return the path of the manifest of a model file."""
    return model_path.with_suffix(".json")


def read_manifest(model_path: Path) -> Manifest:
    """Read the manifest beside ``model_path``. A missing file counts as an empty manifest.

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
        values = fields.read_object(data)
    except ValueError as error:
        raise ModelRefused(
            path,
            expected="a JSON object in UTF-8",
            found=str(error),
            fix='Correct it, or remove it to have everything probed; {"labels": ["cat", "dog"]} suffices.',
        ) from error
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
                path,
                expected=f"field `{field}` to be {error}",
                found=fields.shown(value),
                fix="Correct the field.",
            ) from None
    return Manifest(**known)


_PARSERS: Mapping[str, Parser] = {
    "name": fields.text,
    "family": fields.choice(Family),
    "input": fields.size,
    "placement": fields.choice(Placement),
    "pad_value": fields.integer(0, 255),
    "colour": fields.choice(Colour),
    "scale": fields.number(1e-6, 1e6),
    "mean": fields.triple(-1e6, 1e6),
    "std": fields.triple(1e-6, 1e6),
    "activation": fields.choice(Activation),
    "labels": fields.labels,
    "first_class_id": fields.integer(0, 1),
    "output": fields.output_names,
    "code_classes": fields.code_classes,
    "sha256": fields.sha256,
    "conf_threshold": fields.number(0.0, 1.0),
    "agnostic_nms": fields.boolean,
    "batch_max": fields.integer(1, 256),
    "licence": fields.text,
    "source": fields.text,
    "parents": fields.parents,
    "training": fields.record,
    "metrics": fields.record,
}
