"""Label Studio tasks of samples, with the model's boxes as predictions. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from streamer.datasets.labelled import Labelled
from streamer.datasets.sample import Detection, Sample


def label_studio_tasks(samples: Sequence[Labelled], address: str) -> list[dict[str, Any]]:
    """Return the tasks; ``address`` and the picture's path in the export make the address of a picture.

    The score of a prediction is 1 - uncertainty, so that Label Studio's order "lowest score first" shows the
    most useful frames first.
    """
    return [
        {
            "data": {
                "image": f"{address}images/{labelled.part}/{labelled.file_name}",
                "sample": labelled.sample.sha256,
                "stream": labelled.sample.stream,
                "captured_at": labelled.sample.captured_at,
                "part": labelled.part,
                "reasons": ", ".join(labelled.sample.reasons),
            },
            "predictions": [
                {
                    "model_version": labelled.sample.model,
                    "score": round(1 - labelled.sample.uncertainty, 4),
                    "result": [_result(labelled.sample, detection) for detection in labelled.detections],
                }
            ],
        }
        for labelled in samples
    ]


def label_studio_config(labels: Sequence[str]) -> str:
    """Return the labelling interface that the tasks fit."""
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


def _result(sample: Sample, detection: Detection) -> dict[str, Any]:
    """Return one rectangle; its place is in percent of the picture."""
    x1, y1, x2, y2 = detection.box
    across, down = 100 / sample.width, 100 / sample.height
    return {
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": sample.width,
        "original_height": sample.height,
        "image_rotation": 0,
        "score": detection.score,
        "value": {
            "x": round(x1 * across, 4),
            "y": round(y1 * down, 4),
            "width": round((x2 - x1) * across, 4),
            "height": round((y2 - y1) * down, 4),
            "rotation": 0,
            "rectanglelabels": [detection.label],
        },
    }


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
