"""COCO instances of samples: what pycocotools, CVAT and FiftyOne read. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from streamer.datasets.labelled import Labelled


def coco_instances(samples: Sequence[Labelled], labels: Sequence[str]) -> dict[str, Any]:
    """Return one annotations file. Boxes are x, y, width, height in pixels; ids count from 1.

    ``score`` is no COCO field of ground truth; readers pass it by, and it tells pre-annotations from labels.
    """
    category = {label: number for number, label in enumerate(labels, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, labelled in enumerate(samples, 1):
        sample = labelled.sample
        images.append(
            {
                "id": number,
                "file_name": labelled.file_name,
                "width": sample.width,
                "height": sample.height,
                "date_captured": sample.captured_at,
                "stream": sample.stream,
                "reasons": list(sample.reasons),
                "uncertainty": sample.uncertainty,
                "probability": sample.probability,
            }
        )
        for detection in labelled.detections:
            x1, y1, x2, y2 = detection.box
            width, height = round(x2 - x1, 2), round(y2 - y1, 2)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": category[detection.label],
                    "bbox": [x1, y1, width, height],
                    "area": round(width * height, 2),
                    "iscrowd": 0,
                    "segmentation": [],
                    "score": detection.score,
                }
            )
    return {
        "info": {"description": "samples of real-time-vision-api; boxes are pre-annotations of its model"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": label} for label, number in category.items()],
    }
