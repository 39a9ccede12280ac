"""Reads the JSON export of Label Studio: tasks with annotations, whose boxes are in per cent."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from streamer.datasets.annotations import AnnotatedBox, AnnotatedPicture, Annotations, BadLabels, read_json

#: Types of results that say something of a picture or a box and are no shapes.
_NO_SHAPES = frozenset({"choices", "textarea", "rating", "relation", "taxonomy", "number", "datetime"})


def read_label_studio(path: Path) -> Annotations:
    """Return the annotations of an export of the format "JSON".

    A task is labelled by its annotations, never by its predictions. An annotation without boxes says that
    nothing is in the picture; a task that was skipped, or that has no annotation, says nothing. Of several
    annotations, one that is marked as ground truth counts, else the one that was changed last. A rotated box
    becomes the upright box around it. Raises BadLabels if the file is something else.
    """
    tasks = read_json(path)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise BadLabels(f"{path}: expected a list of tasks, as Label Studio exports with the format JSON")
    result = Annotations()
    for number, task in enumerate(tasks):
        where = f"{path.name} task {task.get('id', number)}"
        if not isinstance(task.get("data"), dict):
            raise BadLabels(
                f"{where}: field `data` is missing; export with the format JSON, not with JSON-MIN"
            )
        try:
            _read_task(task, where, result)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            result.faults.append(f"{where}: not a task of Label Studio: {error!r}")
    return result


def _read_task(task: dict[str, Any], where: str, result: Annotations) -> None:
    annotations = task.get("annotations", task.get("completions")) or []
    current = [entry for entry in annotations if not entry.get("was_cancelled")]
    if not current:
        what = "it was skipped" if annotations else "it has no annotation"
        result.notes.append(f"{where}: {what}; left out")
        return
    ranked = sorted(current, key=lambda entry: (bool(entry.get("ground_truth")), _at(entry)))
    chosen = ranked[-1]
    pictures = [_picture(task, entry, where) for entry in ranked]
    answers = {frozenset((box.box, box.label) for box in picture.boxes) for picture, _ in pictures}
    if len(answers) > 1:
        result.notes.append(
            f"{where}: its {len(current)} annotations differ; the one of {_by(chosen) or 'unknown'} "
            f"({_at(chosen) or 'no date'}) counts"
        )
    picture, faults = pictures[-1]
    result.pictures.append(picture)
    result.faults += faults
    result.classes += [box.label for box in picture.boxes if box.label not in result.classes]


def _picture(task: dict[str, Any], entry: dict[str, Any], where: str) -> tuple[AnnotatedPicture, list[str]]:
    boxes: list[AnnotatedBox] = []
    faults: list[str] = []
    size = None
    for number, region in enumerate(entry.get("result") or ()):
        if "value" not in region or region.get("type") in _NO_SHAPES:
            continue
        here = f"{where}, region {region.get('id', number)}"
        if region.get("type") != "rectanglelabels":
            faults.append(f"{here}: field `type` is {region.get('type')!r}; allowed is rectanglelabels")
            continue
        if region.get("image_rotation"):
            faults.append(
                f"{here}: field `image_rotation` is {region['image_rotation']}; boxes on a picture that was "
                "turned while it was labelled cannot be placed"
            )
            continue
        width, height = region.get("original_width"), region.get("original_height")
        if width and height:
            size = (int(width), int(height))
        labels = region["value"].get("rectanglelabels") or []
        if not labels:
            faults.append(f"{here}: the box has no class")
        if region["value"].get("rotation") and size is None:
            faults.append(
                f"{here}: field `rotation` is {region['value']['rotation']}, and `original_width` and "
                "`original_height` are missing, without which a rotated box cannot be placed"
            )
            continue
        corners, is_rotated = _corners(region["value"], size)
        boxes += [AnnotatedBox(corners, str(label), here, is_rotated) for label in labels]
    data = task["data"]
    picture = AnnotatedPicture(
        name=_image(data),
        where=where,
        boxes=tuple(boxes),
        relative=True,
        size=size,
        sample_id=str(data.get("sample", "")),
        by=_by(entry),
        at=_at(entry),
        looked_at=True,
    )
    return picture, faults


def _corners(
    value: dict[str, Any], size: tuple[int, int] | None
) -> tuple[tuple[float, float, float, float], bool]:
    """Return x1, y1, x2, y2 in parts of the sides, and whether the box was rotated.

    Label Studio turns a box clockwise around its top left corner, in pixels.
    """
    x, y, w, h = (float(value[name]) / 100 for name in ("x", "y", "width", "height"))
    angle = math.radians(float(value.get("rotation") or 0))
    if not angle:
        return (x, y, x + w, y + h), False
    aspect = size[0] / size[1] if size else 1.0
    cos, sin = math.cos(angle), math.sin(angle)
    across = [x + dx * cos - dy * sin / aspect for dx, dy in ((0, 0), (w, 0), (0, h), (w, h))]
    down = [y + dx * sin * aspect + dy * cos for dx, dy in ((0, 0), (w, 0), (0, h), (w, h))]
    return (min(across), min(down), max(across), max(down)), True


def _image(data: dict[str, Any]) -> str:
    """Return the address of a task's image: the field ``image``, or the only one that looks like a file."""
    for name in ("image", "img", "$undefined$"):
        if isinstance(data.get(name), str):
            return str(data[name])
    suffixes = (".jpg", ".jpeg", ".png", ".webp", ".heic", ".avif")
    found = [
        value
        for value in data.values()
        if isinstance(value, str) and value.partition("&")[0].lower().endswith(suffixes)
    ]
    if len(found) != 1:
        raise ValueError("field `data` names no image")
    return found[0]


def _by(entry: dict[str, Any]) -> str:
    by = entry.get("completed_by")
    if isinstance(by, dict):
        return str(by.get("email") or by.get("username") or f"user {by.get('id')}")
    return "" if by is None else f"user {by}"


def _at(entry: dict[str, Any]) -> str:
    at = entry.get("updated_at") or entry.get("created_at") or ""
    return at if isinstance(at, str) else ""
