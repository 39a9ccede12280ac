"""Builds exports as Label Studio, CVAT and Ultralytics' tools write them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

#: A box as class name and x1, y1, x2, y2 in pixels.
Box = tuple[str, float, float, float, float]
WIDTH, HEIGHT = 160, 120


def picture(seed: int) -> npt.NDArray[np.uint8]:
    """Return a picture that is no near-duplicate of one with another seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (9, 12, 3), np.uint8)
    result: npt.NDArray[np.uint8] = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return result


def write_pictures(folder: Path, names: Sequence[str]) -> None:
    """Write one picture for each name; the seed is the number in the name."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        number = int("".join(c for c in path.stem if c.isdigit()) or 0)
        cv2.imwrite(str(path), picture(number))


# -- Label Studio --------------------------------------------------------------------------------------


def region(box: Box, number: int = 0, **value: Any) -> dict[str, Any]:
    """Return one rectangle of a result."""
    label, x1, y1, x2, y2 = box
    return {
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "image_rotation": 0,
        "value": {
            "x": x1 / WIDTH * 100,
            "y": y1 / HEIGHT * 100,
            "width": (x2 - x1) / WIDTH * 100,
            "height": (y2 - y1) / HEIGHT * 100,
            "rotation": 0,
            "rectanglelabels": [label],
        }
        | value,
        "id": f"r{number}",
        "from_name": "label",
        "to_name": "image",
        "type": "rectanglelabels",
        "origin": "manual",
    }


def annotation(boxes: Sequence[Box], **fields: Any) -> dict[str, Any]:
    """Return one annotation of a task."""
    return {
        "id": 71,
        "completed_by": 3,
        "result": [region(box, number) for number, box in enumerate(boxes)],
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": "2026-11-24T09:00:00.100000Z",
        "updated_at": "2026-11-24T09:05:00.250000Z",
        "draft_created_at": None,
        "lead_time": 8.1,
        "prediction": {},
        "result_count": len(boxes),
        "unique_id": "6f1c9c3e-6a55-4f0f-a9b8-0b7b1b6a7b4e",
        "import_id": None,
        "last_action": None,
        "bulk_created": False,
        "task": 12,
        "project": 3,
        "updated_by": 3,
        "parent_prediction": None,
        "parent_annotation": None,
        "last_created_by": None,
    } | fields


def task(number: int, image: str, *annotations: dict[str, Any], **data: Any) -> dict[str, Any]:
    """Return one task, with a prediction that must never become a label."""
    predicted = {
        "id": 5,
        "model_version": "v1 nano",
        "result": [region(("guessed", 1, 1, 9, 9))],
        "score": 0.4,
    }
    return {
        "id": number,
        "annotations": list(annotations),
        "file_upload": None,
        "drafts": [],
        "predictions": [predicted],
        "data": {"image": image} | data,
        "meta": {},
        "created_at": "2026-11-23T08:00:00.000000Z",
        "updated_at": "2026-11-24T09:05:00.260000Z",
        "inner_id": number,
        "total_annotations": len(annotations),
        "cancelled_annotations": sum(entry["was_cancelled"] for entry in annotations),
        "total_predictions": 1,
        "comment_count": 0,
        "unresolved_comment_count": 0,
        "last_comment_updated_at": None,
        "project": 3,
        "updated_by": 3,
        "comment_authors": [],
    }


def write_tasks(path: Path, *tasks: dict[str, Any]) -> Path:
    """Write an export of the format JSON."""
    path.write_text(json.dumps(tasks))
    return path


# -- CVAT ----------------------------------------------------------------------------------------------


def cvat_coco(labels: Mapping[str, Sequence[Box]], classes: Sequence[str]) -> dict[str, Any]:
    """Return ``instances_default.json`` of CVAT's format COCO 1.0 for boxes by file name."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (name, boxes) in enumerate(labels.items(), 1):
        images.append(
            {
                "id": image_id,
                "width": WIDTH,
                "height": HEIGHT,
                "file_name": name,
                "license": 0,
                "flickr_url": "",
                "coco_url": "",
                "date_captured": 0,
            }
        )
        for label, x1, y1, x2, y2 in boxes:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": list(classes).index(label) + 1,
                    "segmentation": [],
                    "area": (x2 - x1) * (y2 - y1),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "iscrowd": 0,
                    "attributes": {"occluded": False, "rotation": 0.0},
                }
            )
    return {
        "licenses": [{"name": "", "id": 0, "url": ""}],
        "info": {
            "contributor": "",
            "date_created": "",
            "description": "",
            "url": "",
            "version": "",
            "year": "",
        },
        "categories": [
            {"id": number, "name": name, "supercategory": ""} for number, name in enumerate(classes, 1)
        ],
        "images": images,
        "annotations": annotations,
    }


def write_cvat_coco(
    path: Path, labels: Mapping[str, Sequence[Box]], classes: Sequence[str], *, images: bool = True
) -> Path:
    """Write the ZIP file that CVAT exports, with or without the images."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("annotations/instances_default.json", json.dumps(cvat_coco(labels, classes)))
        for name in labels if images else ():
            number = int("".join(c for c in Path(name).stem if c.isdigit()) or 0)
            archive.writestr(f"images/default/{name}", cv2.imencode(".png", picture(number))[1].tobytes())
    return path


def yolo_text(boxes: Sequence[Box], classes: Sequence[str]) -> str:
    """Return the lines of a label file as CVAT writes them."""
    lines = []
    for label, x1, y1, x2, y2 in boxes:
        values = ((x1 + x2) / 2 / WIDTH, (y1 + y2) / 2 / HEIGHT, (x2 - x1) / WIDTH, (y2 - y1) / HEIGHT)
        lines.append(" ".join([str(list(classes).index(label)), *(f"{value:.6f}" for value in values)]))
    return "".join(f"{line}\n" for line in lines)


def write_cvat_yolo(path: Path, labels: Mapping[str, Sequence[Box]], classes: Sequence[str]) -> Path:
    """Write the ZIP file of CVAT's format YOLO 1.1, with images."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "obj.data",
            f"classes = {len(classes)}\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n",
        )
        archive.writestr("obj.names", "".join(f"{name}\n" for name in classes))
        archive.writestr("train.txt", "".join(f"data/obj_train_data/{name}\n" for name in labels))
        for name, boxes in labels.items():
            number = int("".join(c for c in Path(name).stem if c.isdigit()) or 0)
            archive.writestr(f"obj_train_data/{name}", cv2.imencode(".png", picture(number))[1].tobytes())
            archive.writestr(f"obj_train_data/{Path(name).with_suffix('.txt')}", yolo_text(boxes, classes))
    return path


def write_ultralytics(
    folder: Path, parts: Mapping[str, Mapping[str, Sequence[Box]]], classes: Sequence[str]
) -> Path:
    """Write a folder with ``data.yaml`` and images and labels by part; return the path of ``data.yaml``."""
    for part, labels in parts.items():
        write_pictures(folder / "images" / part, list(labels))
        for name, boxes in labels.items():
            path = folder / "labels" / part / Path(name).with_suffix(".txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            if boxes:  # a missing file means that nothing is in the picture
                path.write_text(yolo_text(boxes, classes))
    lines = ["# made by a labelling tool", "path: .", *(f"{part}: images/{part}" for part in parts), "names:"]
    lines += [f"  {number}: {name}" for number, name in enumerate(classes)]
    (folder / "data.yaml").write_text("\n".join(lines) + "\n")
    return folder / "data.yaml"
