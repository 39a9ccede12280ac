"""Measures what the model card says of a model, through the code that serves, as plain numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inference.core.detection_params import DetectionParams
from inference.core.detections import Boxes
from inference.core.overlap import pairwise_iou
from inference.engine.detector import Detector
from inference.preprocess.letterbox import Letterbox
from models.training import empty, widths
from models.training.negatives import KINDS
from models.training.photos import Photo
from models.training.score import score_photos
from models.training.symbols import CLASSES
from models.training.textures import Image
from streamer.evaluation.model_run import detect_file

#: Boxes of two classes with at least this IoU are on one object.
_ONE_OBJECT = 0.5
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Sources:
    """What is measured on: the photographs of the part `test`, folders and videos without a code."""

    photos: Sequence[Photo]
    #: Digest of the split of which the photographs are a part.
    split: str
    folders: Sequence[Path] = ()
    videos: Sequence[Path] = ()


def detect(detector: Detector, image: Image, params: DetectionParams | None = None) -> Boxes:
    """Return the boxes (n, 6) of an image (h, w, 3) BGR, in its pixels, as a client gets them by default."""
    model = detector.model
    slot = np.empty((model.input_height, model.input_width, 3), np.uint8)
    place = Letterbox.fit(image.shape[1], image.shape[0], model)
    place.write(image, slot)
    return place.to_source(
        detector.postprocess(detector.infer([slot], thread=0), 0, params or model.default_params)
    )


def measure(
    detectors: Sequence[Detector], sources: Sources, on_progress: Progress = lambda _: None
) -> list[dict[str, Any]]:
    """Return the figures of each detector, on the same pictures. Raises ValueError or OSError."""
    results: list[dict[str, Any]] = []
    for detector in detectors:
        on_progress(f"{detector.model.name}: photographs")
        results.append(
            {
                "name": detector.model.name,
                "sha256": detector.model.sha256,
                "threshold": detector.model.default_params.conf_threshold,
                "photographs": photographs(detector, sources),
                "empty": {},
                "width": {},
            }
        )
    groups: list[tuple[str, Iterable[Image]]] = [(f"drawn {kind}", empty.drawn(kind)) for kind in KINDS]
    groups += [
        (f"folder {folder.name}", (file.image() for file in empty.files(folder)))
        for folder in sources.folders
    ]
    groups += [(f"video {video.name}", empty.frames(video)) for video in sources.videos]
    for name, images in groups:
        on_progress(f"without a code: {name}")
        counts = np.zeros((len(detectors), 2), int)
        for image in images:
            counts += [[len(detect(detector, image)) > 0, 1] for detector in detectors]
        for result, count in zip(results, counts.tolist(), strict=True):
            result["empty"][name] = count
    for kind in widths.KINDS:
        on_progress(f"widths of {kind} codes")
        tables = widths.found_by_width([_bound(detector) for detector in detectors], kind)
        for result, table in zip(results, tables, strict=True):
            shares = {str(part): found / widths.PICTURES for part, found in table.items()}
            result["width"][kind] = {"recall": shares, "smallest": widths.smallest_part(table)}
    return results


def _bound(detector: Detector) -> widths.Detect:
    return lambda image: detect(detector, image)


def photographs(detector: Detector, sources: Sources) -> dict[str, Any]:
    """Return recall by class, precision, and what else the photographs of ``sources`` tell of a detector."""
    photos, params = sources.photos, detector.model.default_params
    found = [detect_file(detector, photo.path, params).boxes for photo in photos]
    result = score_photos(photos, found, params.conf_threshold)
    objects, doubled = (sum(counts) for counts in zip(*map(two_classes, found), strict=True))
    empty_counts = [len(boxes) for boxes, photo in zip(found, photos, strict=True) if not len(photo.boxes)]
    return {
        "split": sources.split,
        "recall": {
            name: [int(result.point.found[index]), result.codes(name)] for index, name in enumerate(CLASSES)
        },
        "precision": round(result.precision, 4),
        "two_classes": [doubled, objects],
        "empty": [sum(count > 0 for count in empty_counts), len(empty_counts)],
        "wrong": result.wrong,
    }


def two_classes(boxes: Boxes) -> tuple[int, int]:
    """Return the number of objects in one picture's boxes, and how many of them have boxes of two classes."""
    left = list(range(len(boxes)))
    objects = doubled = 0
    iou = pairwise_iou(boxes, boxes) if len(boxes) else np.zeros((0, 0))
    while left:
        first = left[0]
        group = [index for index in left if iou[first, index] >= _ONE_OBJECT]
        objects += 1
        doubled += len({int(boxes[index, 5]) for index in group}) > 1
        left = [index for index in left if index not in group]
    return objects, doubled


def empty_share(result: dict[str, Any], prefix: str) -> tuple[int, int]:
    """Return how many pictures of the groups whose names begin so have a box, and how many there are."""
    counts = [count for name, count in result["empty"].items() if name.startswith(prefix)]
    return sum(count[0] for count in counts), sum(count[1] for count in counts)
