"""Reads and writes the labels of one picture of a labelled set: what a person said is in it, who and when.

A file holds no prediction of a model: those stay in the sidecars of samples. `labelled_set` reads all files.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from streamer.datasets.sample import DatasetError

#: Folders of a set.
IMAGES, LABELS = "images", "labels"
SCHEMA = 1
#: Number of earlier states whose digests are kept.
_REMEMBERED = 50
_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,199}")


class BadSet(DatasetError):
    """A file of a labelled set is missing or wrong; the text names file and field, and what is allowed."""


class State(StrEnum):
    """What a person decided about a picture."""

    #: It has boxes.
    LABELLED = "labelled"
    #: A person looked, and none of the classes is in it.
    NOTHING_HERE = "nothing_here"
    #: It does not belong in the set; its file stays, so that a later import does not bring it back.
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class LabelledBox:
    """One object: x1, y1, x2, y2 in pixels of the upright image, and the name of its class."""

    box: tuple[float, float, float, float]
    label: str


@dataclass(frozen=True, slots=True)
class PictureLabels:
    """The content of one label file."""

    id: str
    #: Name of the image file in the folder ``images`` of the set.
    image: str
    #: Size of the upright image in pixels.
    width: int
    height: int
    state: State
    boxes: tuple[LabelledBox, ...] = ()
    #: The person who labelled, as the labelling tool names them; empty if the tool does not say.
    by: str = ""
    #: When the labels were last changed, ISO 8601; empty if the tool does not say.
    at: str = ""
    #: Format and file of the import, and the task in it.
    source: str = ""
    #: Digests of the states that these labels replaced, oldest first: an export that has one of them is old.
    earlier: tuple[str, ...] = ()

    def says_the_same(self, other: PictureLabels) -> bool:
        """Return whether both have the same state and boxes, in any order."""
        return self.state is other.state and set(self.boxes) == set(other.boxes)

    @property
    def content_digest(self) -> str:
        """Digest of state and boxes, in any order."""
        boxes = sorted((box.label, *box.box) for box in self.boxes)
        return hashlib.sha256(json.dumps([self.state.value, boxes]).encode()).hexdigest()[:16]

    def after(self, known: PictureLabels) -> PictureLabels:
        """Return these labels as the successor of those that the set has; the image file stays."""
        earlier = (*(entry for entry in known.earlier if entry != self.content_digest), known.content_digest)
        return replace(self, image=known.image, earlier=earlier[-_REMEMBERED:])

    def to_json(self) -> bytes:
        """Return the content of the label file."""
        fields = {
            "schema": SCHEMA,
            "id": self.id,
            "image": self.image,
            "width": self.width,
            "height": self.height,
            "state": self.state.value,
            "boxes": [{"box": list(box.box), "class": box.label} for box in self.boxes],
            "by": self.by,
            "at": self.at,
            "source": self.source,
            "earlier": list(self.earlier),
        }
        return (json.dumps(fields, ensure_ascii=False, indent=1) + "\n").encode()


def is_id(text: str) -> bool:
    """Return whether a text may be the id of a picture, and so the name of a file."""
    return _ID.fullmatch(text) is not None


def read_labels(path: Path) -> PictureLabels:
    """Return the labels in a file, whose name is the id of the picture. Raises BadSet."""
    try:
        fields = json.loads(path.read_bytes())
        if fields["schema"] != SCHEMA:
            raise BadSet(f"{path}: field `schema` is {fields['schema']!r}; this version reads {SCHEMA}")
        labels = _labels(fields)
    except OSError as error:
        raise BadSet(f"{path}: {error.strerror or error}") from error
    except KeyError as error:
        raise BadSet(f"{path}: field `{error.args[0]}` is missing") from error
    except (TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise BadSet(f"{path}: not the labels of a picture: {error}") from error
    if labels.id != path.stem:
        raise BadSet(f"{path}: field `id` is {labels.id!r}; expected the name of the file, {path.stem!r}")
    return labels


def box_fault(box: tuple[float, float, float, float], width: int, height: int) -> str | None:
    """Return why a box cannot be one of an upright image of ``width`` x ``height`` pixels; None if it can."""
    x1, y1, x2, y2 = box
    if not all(map(math.isfinite, box)):
        return f"its box is {_shown(box)}; expected finite numbers"
    if x2 <= x1 or y2 <= y1:
        return f"its box is {_shown(box)}; expected x1 < x2 and y1 < y2"
    if x1 < 0 or y1 < 0 or x2 > width or y2 > height:
        return f"its box is {_shown(box)}; the picture ends at {width}, {height}"
    return None


def _shown(box: tuple[float, float, float, float]) -> str:
    return "[" + ", ".join(f"{value:g}" for value in box) + "]"


def _labels(fields: dict[str, Any]) -> PictureLabels:
    labels = PictureLabels(
        str(fields["id"]),
        str(fields["image"]),
        int(fields["width"]),
        int(fields["height"]),
        State(fields["state"]),
        tuple(_box(entry) for entry in fields["boxes"]),
        str(fields["by"]),
        str(fields["at"]),
        str(fields.get("source", "")),
        tuple(str(entry) for entry in fields.get("earlier", ())),
    )
    if Path(labels.image).name != labels.image:
        raise ValueError(f"field `image` is {labels.image!r}; expected the name of a file")
    if labels.width < 1 or labels.height < 1:
        raise ValueError(f"fields `width` and `height` are {labels.width}x{labels.height}")
    if (labels.state is State.LABELLED) is not bool(labels.boxes):
        raise ValueError(
            f"field `state` is {labels.state.value!r} with {len(labels.boxes)} boxes; `labelled` needs "
            "boxes, and no other state has any"
        )
    for box in labels.boxes:
        if fault := box_fault(box.box, labels.width, labels.height):
            raise ValueError(f"field `boxes`: {fault}")
    return labels


def _box(fields: dict[str, Any]) -> LabelledBox:
    x1, y1, x2, y2 = (float(value) for value in fields["box"])
    return LabelledBox((x1, y1, x2, y2), str(fields["class"]))
