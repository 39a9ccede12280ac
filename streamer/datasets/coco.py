"""Reads annotations in COCO's format, as CVAT ("COCO 1.0") and most other tools export them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streamer.datasets.annotations import (
    AnnotatedBox,
    AnnotatedPicture,
    Annotations,
    BadLabels,
    part_of,
    read_json,
)

_LISTS = ("images", "annotations", "categories")


def read_coco(paths: Sequence[Path]) -> Annotations:
    """Return the annotations of one or several files, such as "instances_train.json" and others.

    Boxes are x, y, width, height in pixels. Crowds, which surround objects that nobody counted, are left out
    and noted. A word for a part at the end of a file's name divides the pictures, if there are several such
    words. The format says neither who labelled nor when. Raises BadLabels if a file is something else.
    """
    result = Annotations()
    for path in paths:
        document = read_json(path)
        if not isinstance(document, dict) or not all(isinstance(document.get(name), list) for name in _LISTS):
            raise BadLabels(f"{path}: expected COCO annotations with the lists {', '.join(_LISTS)}")
        try:
            _read_document(document, path.name, part_of(re.split(r"[_.-]", path.stem)[-1]), result)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise BadLabels(f"{path}: not COCO annotations: {error!r}") from error
    return result.without_lone_part()


def _read_document(document: dict[str, Any], file: str, part: str, result: Annotations) -> None:
    names: dict[int, str] = {}
    for category in document["categories"]:
        name = str(category["name"])
        names[category["id"]] = name
        if name not in result.classes:
            result.classes.append(name)
    boxes: dict[int, list[AnnotatedBox]] = {image["id"]: [] for image in document["images"]}
    crowds = 0
    for entry in document["annotations"]:
        where = f"{file} annotation {entry.get('id', '?')}"
        category, image = entry["category_id"], entry["image_id"]
        if category not in names:
            result.faults.append(
                f"{where}: field `category_id` is {category!r}; allowed are {', '.join(map(str, names))}"
            )
        elif image not in boxes:
            result.faults.append(f"{where}: field `image_id` is {image!r}; the file has no such image")
        elif entry.get("iscrowd"):
            crowds += 1
        elif not isinstance(entry.get("bbox"), list) or len(entry["bbox"]) != 4:
            result.faults.append(f"{where}: field `bbox` is {entry.get('bbox')!r}; expected x, y, w, h")
        else:
            x, y, width, height = map(float, entry["bbox"])
            rotated = bool((entry.get("attributes") or {}).get("rotation"))
            corners = _surrounding(x, y, width, height, entry) if rotated else (x, y, x + width, y + height)
            boxes[image].append(AnnotatedBox(corners, names[category], where, rotated))
    if crowds:
        result.notes.append(f"{file}: {crowds} crowds (`iscrowd`) left out")
    for image in document["images"]:
        result.pictures.append(
            AnnotatedPicture(
                name=str(image["file_name"]),
                where=f"{file} image {image['id']}",
                boxes=tuple(boxes[image["id"]]),
                size=(int(image["width"]), int(image["height"])) if "width" in image else None,
                part=part,
            )
        )


def _surrounding(
    x: float, y: float, width: float, height: float, entry: dict[str, Any]
) -> tuple[float, float, float, float]:
    """Return the upright box around one that CVAT turned around its centre by ``attributes.rotation``."""
    from math import cos, radians, sin  # noqa: PLC0415 - hardly any export has such boxes

    angle = radians(float(entry["attributes"]["rotation"]))
    half_w = (width * abs(cos(angle)) + height * abs(sin(angle))) / 2
    half_h = (width * abs(sin(angle)) + height * abs(cos(angle))) / 2
    middle_x, middle_y = x + width / 2, y + height / 2
    return middle_x - half_w, middle_y - half_h, middle_x + half_w, middle_y + half_h
