"""Reads a labelled set: pictures with the boxes that people drew, divided into train, val and test.

`set_folder` writes sets; `label_file` reads and writes the labels of one picture.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from streamer.datasets.label_file import IMAGES, LABELS, BadSet, PictureLabels, State, read_labels

PARTS = ("train", "val", "test")
SCHEMA = 1
SET_FILE, PARTS_FILE = "set.json", "parts.json"


@dataclass(frozen=True, slots=True)
class LabelledPicture:
    """One picture and its true boxes; a picture without boxes has nothing in it (a true negative)."""

    #: SHA-256 of the original image file, by which descriptions of samples name it, too.
    id: str
    #: The image file in the set. Its pixels are upright: no EXIF orientation applies to it.
    path: Path
    #: Size in pixels.
    width: int
    height: int
    #: float32 (n, 4): x1, y1, x2, y2 in pixels.
    boxes: npt.NDArray[np.float32]
    #: int64 (n,): indices into the classes of the set.
    classes: npt.NDArray[np.int64]
    #: ``train``, ``val`` or ``test``.
    part: str


@dataclass(frozen=True)
class LabelledSet:
    """The pictures of a set in the order of their ids, without those that were deleted."""

    classes: tuple[str, ...]
    pictures: tuple[LabelledPicture, ...]

    def part(self, name: str) -> tuple[LabelledPicture, ...]:
        """Return the pictures of ``train``, ``val`` or ``test``."""
        return tuple(picture for picture in self.pictures if picture.part == name)

    @cached_property
    def digest(self) -> str:
        """SHA-256, as 64 hexadecimal digits, over classes, parts, labels and the bytes of all images.

        Two sets with the same digest train and score alike. Who labelled, and when, is not in it. Reads every
        image once. Raises BadSet if one cannot be read.
        """
        digest = hashlib.sha256(json.dumps(self.classes).encode())
        for picture in self.pictures:
            facts = (picture.id, picture.part, picture.boxes.tolist(), picture.classes.tolist())
            digest.update(json.dumps(facts).encode())
            try:
                digest.update(hashlib.sha256(picture.path.read_bytes()).digest())
            except OSError as error:
                raise BadSet(f"{picture.path}: {error.strerror or error}") from error
        return digest.hexdigest()


def load_set(folder: Path) -> LabelledSet:
    """Return the labelled set in ``folder``.

    Raises BadSet, which names the file and field, what was found and what is allowed.
    """
    classes = read_classes(folder)
    parts = read_parts(folder / PARTS_FILE)
    pictures = []
    for path in sorted((folder / LABELS).glob("*.json")):
        labels = read_labels(path)
        if labels.state is not State.DELETED:
            pictures.append(_picture(folder, path, labels, classes, parts))
    return LabelledSet(classes, tuple(pictures))


def read_classes(folder: Path) -> tuple[str, ...]:
    """Return the class names in a set's ``set.json``. Raises BadSet."""
    path = folder / SET_FILE
    fields = _read_object(path, f"{folder} is not a labelled set: it has no {SET_FILE}")
    if fields.get("schema") != SCHEMA:
        raise BadSet(f"{path}: field `schema` is {fields.get('schema')!r}; this version reads {SCHEMA}")
    classes = fields.get("classes")
    if not isinstance(classes, list) or not all(isinstance(name, str) and name for name in classes):
        raise BadSet(f"{path}: field `classes` is {classes!r}; expected a list of names")
    if len(set(classes)) < len(classes):
        raise BadSet(f"{path}: field `classes` has a name twice: {', '.join(classes)}")
    return tuple(classes)


def read_parts(path: Path) -> dict[str, str]:
    """Return the part of each id in a "parts.json"; nothing if there is no such file. Raises BadSet."""
    if not path.exists():
        return {}
    parts = _read_object(path, f"{path} is missing")
    for name, part in parts.items():
        if part not in PARTS:
            raise BadSet(f"{path}: field `{name}` is {part!r}; allowed are {', '.join(PARTS)}")
    return parts


def _picture(
    folder: Path, path: Path, labels: PictureLabels, classes: tuple[str, ...], parts: dict[str, str]
) -> LabelledPicture:
    part = parts.get(labels.id)
    if part is None:
        raise BadSet(f"{folder / PARTS_FILE}: `{labels.id}` is missing; {path} needs its part")
    image = folder / IMAGES / labels.image
    if not image.is_file():
        raise BadSet(f"{path}: field `image` is {labels.image!r}; there is no file {image}")
    for box in labels.boxes:
        if box.label not in classes:
            allowed = ", ".join(classes) or "none"
            raise BadSet(f"{path}: field `class` is {box.label!r}; {SET_FILE} allows {allowed}")
    return LabelledPicture(
        labels.id,
        image,
        labels.width,
        labels.height,
        np.array([box.box for box in labels.boxes], np.float32).reshape(-1, 4),
        np.array([classes.index(box.label) for box in labels.boxes], np.int64),
        part,
    )


def _read_object(path: Path, if_missing: str) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise BadSet(if_missing) from error
    except OSError as error:
        raise BadSet(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise BadSet(f"{path}: not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise BadSet(f"{path}: expected a JSON object, found {type(fields).__name__}")
    return fields
