"""Reads labels in YOLO's formats: Ultralytics' ``data.yaml``, and what CVAT and Label Studio write.

CVAT's "YOLO 1.1" has ``obj.data``, and Label Studio's "YOLO" has ``classes.txt``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from streamer.datasets.annotations import (
    AnnotatedBox,
    AnnotatedPicture,
    Annotations,
    BadLabels,
    found_xml,
    part_of,
)

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".heic", ".heif", ".avif"})


def read_yolo(path: Path) -> Annotations:
    """Return the labels of ``data.yaml``, ``obj.data`` or ``classes.txt``, or of a folder with one of them.

    A line is ``class cx cy w h`` in parts of width and height, and a sixth whole number is the id of a track.
    A picture whose label file is empty or missing has nothing in it; in a folder with ``classes.txt`` a
    picture without a label file was not labelled. The formats say neither who labelled nor when. Raises
    BadLabels if it is something else.
    """
    if path.is_dir():
        found = [path / name for name in ("data.yaml", "data.yml", "obj.data", "obj.names", "classes.txt")]
        path = next((file for file in found if file.is_file()), path)
    xml = path if path.suffix == ".xml" else next(path.glob("*.xml"), None) if path.is_dir() else None
    if xml is not None:
        raise found_xml(xml)
    if path.is_dir():
        raise BadLabels(
            f"{path}: expected a folder with data.yaml (Ultralytics), obj.data (CVAT) or classes.txt "
            "(Label Studio)"
        )
    result = Annotations()
    if path.suffix in (".yaml", ".yml"):
        _read_ultralytics(path, result)
    elif path.name == "classes.txt":
        _read_label_studio(path, result)
    else:
        _read_darknet(path, result)
    return result.without_lone_part()


# -- Ultralytics ---------------------------------------------------------------------------------------


def _read_ultralytics(path: Path, result: Annotations) -> None:
    import yaml  # noqa: PLC0415 - no other format needs it

    try:
        fields = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadLabels(f"{path}: {' '.join(str(error).split())}") from error
    if not isinstance(fields, dict):
        raise BadLabels(f"{path}: expected the fields names, train, val and test")
    result.classes = _names(fields.get("names"), path)
    root = _root(path.parent, fields.get("path"))
    seen: set[Path] = set()
    for field_name in ("train", "val", "valid", "test"):
        entries = fields.get(field_name) or []
        for entry in [entries] if isinstance(entries, str) else entries:
            for image in _images(root, path.parent, str(entry), f"{path}: field `{field_name}`"):
                if image not in seen:
                    seen.add(image)
                    _read_labels(image, _label_file(image), part_of(field_name), result)
    if not seen:
        raise BadLabels(f"{path}: fields `train`, `val` and `test` name no images")


def _names(names: Any, path: Path) -> list[str]:
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise BadLabels(f"{path}: field `names` is {names!r:.60}; expected the class names, counted from 0")
    return [str(name) for name in names]


def _root(folder: Path, given: Any) -> Path:
    """Return the folder of the data: that of the file, if the field ``path`` is of another machine."""
    root = folder / str(given) if given else folder
    return root if root.is_dir() else folder


def _images(root: Path, folder: Path, entry: str, where: str) -> Iterator[Path]:
    """Return the images of one entry: a folder, or a list of paths in a text file."""
    # Roboflow writes `../train/images` for a folder beside the file.
    plain = PurePosixPath(entry)
    choices = [root / plain, folder / plain, folder / PurePosixPath(*[p for p in plain.parts if p != ".."])]
    place = next((choice for choice in choices if choice.exists()), None)
    if place is None:
        raise BadLabels(f"{where} is {entry!r}; there is no {root / plain}")
    if place.is_dir():
        yield from sorted(file for file in place.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
        return
    yield from (_listed(root, line) for line in _lines(place) if line.strip())


def _listed(root: Path, line: str) -> Path:
    """Return the image that a line of a list names; tools write `data/` in front of what lies beside it."""
    path = PurePosixPath(line.strip())
    if path.parts[0] == "data" and not (root / "data").exists():
        path = path.relative_to("data")
    return root / path


def _label_file(image: Path) -> Path:
    """Return the label file of an image: the last folder ``images`` replaced by ``labels``."""
    parts = list(image.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


# -- CVAT's YOLO 1.1 (Darknet) -------------------------------------------------------------------------


def _read_darknet(path: Path, result: Annotations) -> None:
    root = path.parent
    names = root / "obj.names"
    if path.name == "obj.data":
        for line in _lines(path):
            key, _, value = (word.strip() for word in line.partition("="))
            if key == "names":
                names = root / PurePosixPath(value).name
    result.classes = [line.strip() for line in _lines(names) if line.strip()]
    lists = [file for file in sorted(root.glob("*.txt")) if part_of(file.stem)]
    if not lists:
        raise BadLabels(f"{root}: expected train.txt, the list of the images")
    for file in lists:
        for line in _lines(file):
            if line.strip():
                image = _listed(root, line)
                _read_labels(image, image.with_suffix(".txt"), part_of(file.stem), result)


# -- Label Studio's YOLO -------------------------------------------------------------------------------


def _read_label_studio(path: Path, result: Annotations) -> None:
    """Read the folders ``labels`` and ``images`` beside the list of classes."""
    result.classes = [line.strip() for line in _lines(path) if line.strip()]
    images = {file.stem: file for file in sorted((path.parent / "images").glob("*"))}
    files = sorted((path.parent / "labels").glob("*.txt"))
    if not files:
        raise BadLabels(f"{path.parent / 'labels'}: expected a text file for each labelled picture")
    for labels in files:
        # The export has no images if Label Studio has their addresses only; `--in` finds them by name.
        image = images.get(labels.stem, path.parent / "images" / labels.stem)
        _read_labels(image, labels, "", result)
    if unlabelled := len(images.keys() - {labels.stem for labels in files}):
        result.notes.append(f"{path.parent}: {unlabelled} pictures have no label file; left out")


# -- all -----------------------------------------------------------------------------------------------


def _values(line: str) -> tuple[int, tuple[float, float, float, float]]:
    """Return the class id and cx, cy, w, h of a line. Raises ValueError with what was found instead."""
    words = line.split()
    expected = f"found {line.strip()!r:.60}; expected `class cx cy w h`"
    if len(words) == 6 and not words[5].isdigit():
        raise ValueError(f"{expected}; a sixth number is the score of a prediction, which is no label")
    if len(words) == 9:
        raise ValueError(f"{expected}; this is an oriented box: export upright ones")
    if len(words) >= 7:
        raise ValueError(f"{expected}; this is a polygon or a skeleton: export boxes")
    try:
        class_id, (cx, cy, width, height) = int(words[0]), map(float, words[1:5])
    except ValueError:
        raise ValueError(expected) from None
    return class_id, (cx, cy, width, height)


def _read_labels(image: Path, labels: Path, part: str, result: Annotations) -> None:
    boxes = []
    try:
        lines = _lines(labels) if labels.exists() else []
    except BadLabels as error:
        result.faults.append(str(error))
        return
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{labels.parent.name}/{labels.name} line {number}"
        try:
            class_id, (cx, cy, width, height) = _values(line)
        except ValueError as error:
            result.faults.append(f"{where}: {error}")
            continue
        if not 0 <= class_id < len(result.classes):
            result.faults.append(
                f"{where}: its class is {class_id}; allowed are 0 to {len(result.classes) - 1}"
            )
            continue
        corners = (cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)
        boxes.append(AnnotatedBox(corners, result.classes[class_id], where))
    result.pictures.append(
        AnnotatedPicture(
            os.fspath(image), f"{labels.parent.name}/{labels.name}", tuple(boxes), relative=True, part=part
        )
    )


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadLabels(f"{path}: {error}") from error
