"""Describes the models that a replica serves, for ``/health``."""

from __future__ import annotations

from typing import Annotated, NotRequired, cast

from pydantic import Field
from typing_extensions import TypedDict

from inference.models.model import Family, ModelInfo


class Parent(TypedDict):
    """A model from which another one was trained."""

    name: Annotated[str, Field(description="Name of the model.")]
    sha256: Annotated[str, Field(description="SHA-256 of its file, in hexadecimal digits.")]


class ModelScores(TypedDict, total=False):
    """What a model scored on some pictures."""

    map50: Annotated[float, Field(description="Mean average precision at an IoU of 0.5.")]
    map50_95: Annotated[float, Field(description="The same, averaged over IoUs of 0.5 to 0.95.")]


class Lineage(TypedDict):
    """Where a model comes from and what it scored, as its manifest says."""

    parents: Annotated[list[Parent], Field(description="The models from which it was trained.")]
    set: Annotated[
        str | None, Field(description="Digest of the labelled set on which it was trained; null if unknown.")
    ]
    scores: Annotated[
        dict[str, ModelScores],
        Field(description="By part of the set: `val`, `test`; `promotion` is what decided its promotion."),
    ]


class ServedModel(TypedDict):
    """A model that this replica serves."""

    name: Annotated[str, Field(description="Name of the model.")]
    sha256: Annotated[str, Field(description="SHA-256 of the model file, in hexadecimal digits.")]
    family: Annotated[
        str,
        Field(
            json_schema_extra={"enum": [family.value for family in Family]},
            description="Which inputs and outputs the model has.",
        ),
    ]
    input: Annotated[
        list[int],
        Field(min_length=2, max_length=2, description="Width and height of the model's input, in pixels."),
    ]
    classes: Annotated[int, Field(description="Number of classes that it distinguishes.")]
    provider: Annotated[str, Field(description="The device on which it runs, such as `cpu` or `cuda`.")]
    lineage: NotRequired[
        Annotated[Lineage, Field(description="Absent if the manifest of the model does not say.")]
    ]


def describe_model(info: ModelInfo) -> ServedModel:
    """Return what ``/health`` says of a model."""
    described: ServedModel = {
        "name": info.name,
        "sha256": info.sha256,
        "family": info.family.value,
        "input": [info.input_width, info.input_height],
        "classes": len(info.labels),
        "provider": info.provider,
    }
    if info.lineage is not None:
        described["lineage"] = cast(Lineage, info.lineage)
    return described
