"""Describes what an export of a labelling tool says, before it is matched with pictures.

`label_studio`, `coco` and `yolo` read their formats into these types; `label_import` uses them.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamer.datasets.sample import DatasetError

#: A box may exceed the picture by this much and is then cut off: tools round, some to whole pixels.
_SLACK_PX = 1.0


class BadLabels(DatasetError):
    """An export of a labelling tool is wrong; the text names file and task or line, and what is allowed."""


@dataclass(frozen=True, slots=True)
class AnnotatedBox:
    """One box as the tool wrote it; ``where`` names its file and line, task or annotation."""

    #: x1, y1, x2, y2 in pixels, or in parts of width and height if the picture's boxes are ``relative``.
    box: tuple[float, float, float, float]
    label: str
    where: str
    #: Whether the box surrounds a rotated one and may leave the picture for that reason.
    surrounds: bool = False


@dataclass(frozen=True, slots=True)
class AnnotatedPicture:
    """What a person said of one picture."""

    #: Path or address of the image as the tool has it.
    name: str
    #: File and task, line or image id.
    where: str
    boxes: tuple[AnnotatedBox, ...] = ()
    relative: bool = False
    #: Width and height in pixels that the tool knew; None if it does not say.
    size: tuple[int, int] | None = None
    #: Id of the sample, if the task carries it.
    sample_id: str = ""
    by: str = ""
    at: str = ""
    #: ``train``, ``val`` or ``test``; empty if the export does not divide its pictures.
    part: str = ""
    #: Whether a picture without boxes was certainly looked at.
    looked_at: bool = False


@dataclass(slots=True)
class Annotations:
    """Holds the content of an export."""

    #: Names of the classes, in the order of the export.
    classes: list[str] = field(default_factory=list)
    pictures: list[AnnotatedPicture] = field(default_factory=list)
    #: What makes the export wrong, one sentence each.
    faults: list[str] = field(default_factory=list)
    #: What was left out or decided, one sentence each.
    notes: list[str] = field(default_factory=list)

    def without_lone_part(self) -> Annotations:
        """Remove the parts if there is only one: tools call everything ``train`` if nobody divided it."""
        if len({picture.part for picture in self.pictures if picture.part}) < 2:
            self.pictures = [_without_part(picture) for picture in self.pictures]
        return self


def _without_part(picture: AnnotatedPicture) -> AnnotatedPicture:
    values = {name: getattr(picture, name) for name in AnnotatedPicture.__slots__}
    return AnnotatedPicture(**(values | {"part": ""}))


def to_pixels(found: AnnotatedBox, *, relative: bool, width: int, height: int) -> tuple[float, ...]:
    """Return x1, y1, x2, y2 in pixels, with sides just outside the picture moved onto its edge.

    Numbers have three decimals, so that an import of the same labels yields the same numbers.
    """
    scale = (width, height) if relative else (1, 1)
    box = tuple(value * scale[index % 2] for index, value in enumerate(found.box))
    if not all(map(math.isfinite, box)):
        return box
    slack = math.inf if found.surrounds else _SLACK_PX
    most = (width, height)
    return tuple(round(_onto_edge(value, most[index % 2], slack), 3) for index, value in enumerate(box))


def _onto_edge(value: float, most: int, slack: float) -> float:
    if -slack <= value < 0:
        return 0.0
    return float(most) if most < value <= most + slack else value


def read_json(path: Path) -> Any:
    """Return the content of a JSON file. Raises BadLabels."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadLabels(f"{path}: {error.strerror or error}") from error
    if content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise found_xml(path)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BadLabels(f"{path}: not JSON: {error}") from error


def found_xml(path: Path) -> BadLabels:
    """Return the error for a file of a format that is not read."""
    return BadLabels(
        f"{path}: found XML, as CVAT exports with `CVAT for images 1.1` and `PASCAL VOC 1.1`; "
        "export with `COCO 1.0` or `Ultralytics YOLO Detection 1.0` instead"
    )


def part_of(name: str) -> str:
    """Return the part that a name of a subset means; empty if it is none that tools use."""
    return {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}.get(
        name.lower(), ""
    )
