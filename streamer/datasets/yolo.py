"""YOLO labels of samples: a text file beside each picture, and data.yaml. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

from streamer.datasets.labelled import Labelled
from streamer.datasets.split import PARTS


def yolo_lines(labelled: Labelled, labels: Sequence[str]) -> str:
    """Return ``class cx cy w h`` for each box, as shares of the picture's width and height."""
    sample = labelled.sample
    number = {label: index for index, label in enumerate(labels)}
    lines = []
    for detection in labelled.detections:
        x1, y1, x2, y2 = detection.box
        shares = (
            (x1 + x2) / 2 / sample.width,
            (y1 + y2) / 2 / sample.height,
            (x2 - x1) / sample.width,
            (y2 - y1) / sample.height,
        )
        lines.append(" ".join([str(number[detection.label]), *(f"{share:.6f}" for share in shares)]))
    return "".join(f"{line}\n" for line in lines)


def yolo_yaml(labels: Sequence[str]) -> str:
    """Return data.yaml: folders of the parts, relative to the file, and class names."""
    lines = [f"{part}: images/{part}" for part in PARTS]
    # A JSON string is a YAML string, whatever the label holds.
    lines += ["names:", *(f"  {index}: {json.dumps(label)}" for index, label in enumerate(labels))]
    return "".join(f"{line}\n" for line in lines)
