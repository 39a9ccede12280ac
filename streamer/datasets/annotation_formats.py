"""Annotation formats of an exported dataset: COCO, YOLO, Label Studio. Pure; `export` writes the files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from streamer.datasets.sample import Detection, Sample
from streamer.datasets.split import SUBSETS


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One image of a dataset with its boxes."""

    sample: Sample
    #: Name of the image file, without its folder.
    file_name: str
    #: train, val or test.
    subset: str
    detections: tuple[Detection, ...]


def all_labels(samples: Iterable[Sample]) -> list[str]:
    """Return the labels of all models that produced the samples, in order; equal names are one class."""
    return list(dict.fromkeys(label for sample in samples for label in sample.labels))


def file_stem(sample: Sample) -> str:
    """Return a file name without extension that tells stream and day, unique within a collection."""
    return f"{sample.stream}_{sample.captured_at[:10]}_{sample.sha256[:20]}"


# -- COCO --------------------------------------------------------------------------------------------


def coco_instances(images: Sequence[LabelledImage], labels: Sequence[str]) -> dict[str, Any]:
    """Return one annotation file for pycocotools, CVAT and FiftyOne.

    Boxes are x, y, width, height in pixels; ids count from 1. ``score`` is not a COCO field of ground truth:
    readers ignore it, and it distinguishes pre-annotations from labels.
    """
    category_ids = {label: number for number, label in enumerate(labels, 1)}
    annotations: list[dict[str, Any]] = []
    for image_id, image in enumerate(images, 1):
        for detection in image.detections:
            x1, y1, x2, y2 = detection.box
            width, height = round(x2 - x1, 2), round(y2 - y1, 2)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category_ids[detection.label],
                    "bbox": [x1, y1, width, height],
                    "area": round(width * height, 2),
                    "iscrowd": 0,
                    "segmentation": [],
                    "score": detection.score,
                }
            )
    return {
        "info": {"description": "samples of real-time-vision-api; boxes are pre-annotations of its model"},
        "images": [_coco_image(image_id, image) for image_id, image in enumerate(images, 1)],
        "annotations": annotations,
        "categories": [{"id": number, "name": label} for label, number in category_ids.items()],
    }


def _coco_image(image_id: int, image: LabelledImage) -> dict[str, Any]:
    sample = image.sample
    return {
        "id": image_id,
        "file_name": image.file_name,
        "width": sample.width,
        "height": sample.height,
        "date_captured": sample.captured_at,
        "stream": sample.stream,
        "reasons": list(sample.reasons),
        "uncertainty": sample.uncertainty,
        "probability": sample.probability,
    }


# -- YOLO --------------------------------------------------------------------------------------------


def yolo_lines(image: LabelledImage, labels: Sequence[str]) -> str:
    """Return the label file of one image: ``class cx cy w h`` for each box, relative to width and height."""
    sample = image.sample
    class_ids = {label: index for index, label in enumerate(labels)}
    lines = []
    for detection in image.detections:
        x1, y1, x2, y2 = detection.box
        relative = (
            (x1 + x2) / 2 / sample.width,
            (y1 + y2) / 2 / sample.height,
            (x2 - x1) / sample.width,
            (y2 - y1) / sample.height,
        )
        lines.append(" ".join([str(class_ids[detection.label]), *(f"{value:.6f}" for value in relative)]))
    return "".join(f"{line}\n" for line in lines)


def yolo_yaml(labels: Sequence[str]) -> str:
    """Return data.yaml: the folders of train, val and test, relative to the file, and the class names."""
    lines = [f"{subset}: images/{subset}" for subset in SUBSETS]
    # Every JSON string is a valid YAML string, so no label needs escaping of its own.
    lines += ["names:", *(f"  {index}: {json.dumps(label)}" for index, label in enumerate(labels))]
    return "".join(f"{line}\n" for line in lines)


# -- Label Studio ------------------------------------------------------------------------------------


def label_studio_tasks(images: Sequence[LabelledImage], address: str) -> list[dict[str, Any]]:
    """Return the tasks. ``address`` is put in front of each image's path within the export.

    The score of a prediction is 1 - uncertainty, so that Label Studio's order "lowest score first" shows the
    most informative images first.
    """
    return [
        {
            "data": {
                "image": f"{address}images/{image.subset}/{image.file_name}",
                "sample": image.sample.sha256,
                "stream": image.sample.stream,
                "captured_at": image.sample.captured_at,
                "part": image.subset,
                "reasons": ", ".join(image.sample.reasons),
            },
            "predictions": [
                {
                    "model_version": image.sample.model,
                    "score": round(1 - image.sample.uncertainty, 4),
                    "result": [_label_studio_box(image.sample, detection) for detection in image.detections],
                }
            ],
        }
        for image in images
    ]


def label_studio_config(labels: Sequence[str]) -> str:
    """Return the labelling interface that fits the tasks."""
    lines = [f'    <Label value="{_escaped(label)}"/>' for label in labels]
    return "\n".join(
        [
            "<View>",
            '  <Image name="image" value="$image"/>',
            '  <RectangleLabels name="label" toName="image">',
            *lines,
            "  </RectangleLabels>",
            "</View>",
            "",
        ]
    )


def _label_studio_box(sample: Sample, detection: Detection) -> dict[str, Any]:
    """Return one rectangle; Label Studio counts in percent of width and height."""
    x1, y1, x2, y2 = detection.box
    percent_x, percent_y = 100 / sample.width, 100 / sample.height
    return {
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": sample.width,
        "original_height": sample.height,
        "image_rotation": 0,
        "score": detection.score,
        "value": {
            "x": round(x1 * percent_x, 4),
            "y": round(y1 * percent_y, 4),
            "width": round((x2 - x1) * percent_x, 4),
            "height": round((y2 - y1) * percent_y, 4),
            "rotation": 0,
            "rectanglelabels": [detection.label],
        },
    }


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
