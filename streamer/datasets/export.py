"""Exports samples with their annotations in the formats of common training tools."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from streamer.datasets.picture_finder import ID_DIGITS, SAMPLES_FILE, exported_samples
from streamer.datasets.sample import BadRequest, CannotWrite, DamagedSample, Detection, Sample
from streamer.datasets.sample_parts import PartsFile, assign_samples
from streamer.datasets.source import Source, read_samples
from streamer.datasets.statistics import SUBSETS, Split
from streamer.datasets.upright import upright_image


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
    """Return the labels of all models of the samples, in order of appearance; equal names are one class."""
    return list(dict.fromkeys(label for sample in samples for label in sample.labels))


def file_stem(sample: Sample) -> str:
    """Return a file name without extension that contains stream and day, unique within a collection."""
    return f"{sample.stream}_{sample.captured_at[:10]}_{sample.sha256[:ID_DIGITS]}"


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
    # Every JSON string is a valid YAML string, so JSON's escaping is enough for labels.
    lines += ["names:", *(f"  {index}: {json.dumps(label)}" for index, label in enumerate(labels))]
    return "".join(f"{line}\n" for line in lines)


# -- Label Studio ------------------------------------------------------------------------------------


def label_studio_tasks(images: Sequence[LabelledImage], address: str) -> list[dict[str, Any]]:
    """Return the tasks, with ``address`` in front of each image's path within the export.

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
    """Return the labelling configuration (XML) for a Label Studio project with the exported tasks."""
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
    """Return one rectangle, in Label Studio's unit: per cent of width and height."""
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


#: Address under which Label Studio serves the files of a folder on its own disk.
DEFAULT_ADDRESS = "/data/local-files/?d="


class DatasetFormat(StrEnum):
    """Annotation format of a dataset."""

    COCO = "coco"
    YOLO = "yolo"
    LABEL_STUDIO = "label-studio"


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Which samples go into a dataset, and in which format."""

    format: DatasetFormat
    split: Split
    #: Export only samples that were taken for one of these reasons; if empty, all samples.
    reasons: frozenset[str] = frozenset()
    #: Also export boxes with a score below the caller's threshold.
    below_threshold: bool = False
    #: Address in front of the path of each image in Label Studio's tasks.
    address: str = DEFAULT_ADDRESS
    #: Where the part of each sample is kept from one export to the next; None to keep it nowhere.
    parts: PartsFile | None = None


@dataclass(slots=True)
class Exported:
    """What an export has written."""

    #: Number of images by subset.
    images: Counter[str]
    #: What a person should know, one sentence each.
    notes: list[str] = field(default_factory=list)


def export(
    source: Source,
    folder: Path,
    options: ExportOptions,
    on_progress: Callable[[str, float], None] = lambda step, share: None,
) -> Exported:
    """Write the dataset into ``folder``, which must not exist.

    Raises BadRequest, CannotRead, CannotWrite, BadSet or DamagedSample; after an error, no partial dataset
    remains.
    """
    if folder.exists():
        raise BadRequest(f"{folder} exists already; name a folder that does not exist")
    samples = [
        sample
        for sample in read_samples(source)
        if not options.reasons or options.reasons & set(sample.reasons)
    ]
    if not samples:
        raise BadRequest("there are no samples" + (" with these reasons" if options.reasons else ""))
    samples = _one_for_each_image(samples)
    assigned = assign_samples(
        samples,
        lambda sample: read_image(source, sample),
        options.split,
        options.parts,
        lambda done: on_progress("comparing samples", done / len(samples)),
    )
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        images = []
        for done, sample in enumerate(samples):
            on_progress("writing images", done / len(samples))
            if part := assigned.parts.get(sample.sha256):
                images.append(_write_image(source, sample, part, partial, options))
        _write_labels(images, all_labels(samples), partial, options)
        names = ((f"images/{i.subset}/{i.file_name}", i.sample.sha256, i.subset) for i in images)
        (partial / SAMPLES_FILE).write_bytes(exported_samples(names))
        if options.parts is not None:
            options.parts.add(assigned.parts)
        partial.rename(folder)
    except OSError as error:
        raise CannotWrite(f"{error.filename or folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Exported(Counter(image.subset for image in images), assigned.notes)


def _one_for_each_image(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples without those whose image another one has; random samples take precedence."""
    chosen: dict[str, Sample] = {}
    for sample in samples:
        known = chosen.setdefault(file_stem(sample), sample)
        if known.probability is None and sample.probability is not None:
            chosen[file_stem(sample)] = sample
    return list(chosen.values())


def read_image(source: Source, sample: Sample) -> bytes:
    """Return the image file of a sample, unchanged. Raises DamagedSample or CannotRead."""
    try:
        return source.read(sample.key)
    except FileNotFoundError:
        raise DamagedSample(
            f"{sample.key} is missing; `streamer samples verify` lists all that is missing"
        ) from None


def _write_image(
    source: Source, sample: Sample, part: str, folder: Path, options: ExportOptions
) -> LabelledImage:
    image, extension = upright_image(sample, read_image(source, sample))
    name = f"{file_stem(sample)}.{extension}"
    path = folder / "images" / part / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(image)
    kept = tuple(d for d in sample.detections if options.below_threshold or not d.below_threshold)
    return LabelledImage(sample, name, part, kept)


def _write_labels(
    images: list[LabelledImage], labels: list[str], folder: Path, options: ExportOptions
) -> None:
    if options.format is DatasetFormat.LABEL_STUDIO:
        _write_json(folder / "tasks.json", label_studio_tasks(images, options.address))
        (folder / "label_config.xml").write_text(label_studio_config(labels))
        return
    for subset in SUBSETS:
        of_subset = [image for image in images if image.subset == subset]
        (folder / "images" / subset).mkdir(parents=True, exist_ok=True)
        if options.format is DatasetFormat.COCO:
            _write_json(
                folder / "annotations" / f"instances_{subset}.json", coco_instances(of_subset, labels)
            )
            continue
        texts = folder / "labels" / subset
        texts.mkdir(parents=True, exist_ok=True)
        for image in of_subset:
            (texts / f"{Path(image.file_name).stem}.txt").write_text(yolo_lines(image, labels))
    if options.format is DatasetFormat.YOLO:
        (folder / "data.yaml").write_text(yolo_yaml(labels))


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1))
