"""Writes a dataset: images and labels in a new folder that appears complete or not at all."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import cv2

from streamer.datasets.annotation_formats import (
    LabelledImage,
    all_labels,
    coco_instances,
    file_stem,
    label_studio_config,
    label_studio_tasks,
    yolo_lines,
    yolo_yaml,
)
from streamer.datasets.errors import BadRequest, CannotWrite, DamagedSample
from streamer.datasets.sample import Sample
from streamer.datasets.source import Source, read_samples
from streamer.datasets.split import SUBSETS, Split
from streamer.imaging.decode import decode
from streamer.imaging.header import AnySize
from streamer.imaging.image_header import ImageError, read_header

#: Address under which Label Studio serves the files of a folder on its own disk.
DEFAULT_ADDRESS = "/data/local-files/?d="
#: JPEG quality of images that had to be rotated.
_QUALITY = 95


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
    #: Only samples that were taken for one of these reasons; empty: all.
    reasons: frozenset[str] = frozenset()
    #: Also export boxes with a score below the caller's threshold.
    below_threshold: bool = False
    #: Put in front of the path of an image in Label Studio's tasks.
    address: str = DEFAULT_ADDRESS


def export(source: Source, folder: Path, options: ExportOptions) -> Counter[str]:
    """Write the dataset into ``folder``, which must not exist yet; returns the images of each subset.

    Raises BadRequest, CannotRead, CannotWrite or DamagedSample, and leaves nothing behind then.
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
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        images = [_write_image(source, sample, partial, options) for sample in samples]
        _write_labels(images, all_labels(samples), partial, options)
        partial.rename(folder)
    except OSError as error:
        raise CannotWrite(f"{error.filename or folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Counter(image.subset for image in images)


def upright_image(sample: Sample, data: bytes) -> tuple[bytes, str]:
    """Return the image file with upright pixels, and its extension. Raises DamagedSample.

    The boxes of a sample are those of the upright image. A file that is upright already is returned
    unchanged; others are rotated and encoded again, because tools differ in whether they apply the EXIF
    orientation and none of them knows the protocol's rotation.
    """
    if sample.is_upright:
        return data, sample.kind
    try:
        image = decode(data, read_header(data, AnySize()), rotation=sample.rotation).pixels
    except ImageError as error:
        raise DamagedSample(f"{sample.key}: {error}") from error
    if image.shape[:2] != (sample.height, sample.width):
        raise DamagedSample(
            f"{sample.key}: the upright image has {image.shape[1]}x{image.shape[0]} pixels; "
            f"its sidecar says {sample.width}x{sample.height}"
        )
    extension, parameters = (
        ("png", []) if sample.kind == "png" else ("jpg", [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    )
    return cv2.imencode(f".{extension}", image, parameters)[1].tobytes(), extension


def _write_image(source: Source, sample: Sample, folder: Path, options: ExportOptions) -> LabelledImage:
    try:
        data = source.read(sample.key)
    except FileNotFoundError:
        raise DamagedSample(
            f"{sample.key} is missing; `streamer samples verify` lists all that is missing"
        ) from None
    image, extension = upright_image(sample, data)
    subset = options.split.subset_of(sample.stream, sample.hour)
    name = f"{file_stem(sample)}.{extension}"
    path = folder / "images" / subset / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(image)
    kept = tuple(d for d in sample.detections if options.below_threshold or not d.below_threshold)
    return LabelledImage(sample, name, subset, kept)


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
