"""Writes a data set: pictures and labels into a folder that is whole or absent."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from streamer.datasets.coco import coco_instances
from streamer.datasets.errors import BadRequest, CannotWrite, DamagedSample
from streamer.datasets.label_studio import label_studio_config, label_studio_tasks
from streamer.datasets.labelled import Labelled, all_labels, file_stem
from streamer.datasets.sample import Sample, parse_sample
from streamer.datasets.source import SIDECARS, Source
from streamer.datasets.split import PARTS, Split
from streamer.datasets.upright import upright_picture
from streamer.datasets.yolo import yolo_lines, yolo_yaml

#: How Label Studio serves the files of a folder that it was given.
DEFAULT_ADDRESS = "/data/local-files/?d="


class Form(StrEnum):
    """What a data set looks like."""

    COCO = "coco"
    YOLO = "yolo"
    LABEL_STUDIO = "label-studio"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What goes into a data set, and how."""

    form: Form
    split: Split
    #: Only samples that have one of these reasons; empty: all.
    reasons: frozenset[str] = frozenset()
    #: Also boxes below the caller's threshold.
    below_threshold: bool = False
    #: What stands before the path of a picture in Label Studio's tasks.
    address: str = DEFAULT_ADDRESS


def read_samples(source: Source) -> Iterator[Sample]:
    """Return all samples in the order of their keys. Raises DamagedSample, CannotRead."""
    for key in source.keys(SIDECARS):
        yield parse_sample(source.read(key), key)


def export(source: Source, folder: Path, wishes: Wishes) -> Counter[str]:
    """Write the data set into ``folder``, which must not be there yet; returns pictures by part.

    Raises BadRequest, CannotRead, CannotWrite, DamagedSample; nothing is left behind then.
    """
    if folder.exists():
        raise BadRequest(f"{folder} is there already; name a folder that is not")
    samples = [
        sample
        for sample in read_samples(source)
        if not wishes.reasons or wishes.reasons & set(sample.reasons)
    ]
    if not samples:
        raise BadRequest("there are no samples" + (" with these reasons" if wishes.reasons else ""))
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        labelled = [_write_picture(source, sample, partial, wishes) for sample in samples]
        _write_labels(labelled, all_labels(samples), partial, wishes)
        partial.rename(folder)
    except OSError as error:
        raise CannotWrite(f"{error.filename or folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Counter(item.part for item in labelled)


def _write_picture(source: Source, sample: Sample, folder: Path, wishes: Wishes) -> Labelled:
    try:
        data = source.read(sample.key)
    except FileNotFoundError:
        raise DamagedSample(
            f"{sample.key} is missing; `streamer samples verify` lists what else is"
        ) from None
    picture, extension = upright_picture(sample, data)
    part = wishes.split.part_of(sample.stream, sample.hour)
    name = f"{file_stem(sample)}.{extension}"
    path = folder / "images" / part / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture)
    kept = tuple(d for d in sample.detections if wishes.below_threshold or not d.below_threshold)
    return Labelled(sample, name, part, kept)


def _write_labels(labelled: list[Labelled], labels: list[str], folder: Path, wishes: Wishes) -> None:
    if wishes.form is Form.LABEL_STUDIO:
        _write_json(folder / "tasks.json", label_studio_tasks(labelled, wishes.address))
        (folder / "label_config.xml").write_text(label_studio_config(labels))
        return
    for part in PARTS:
        of_part = [item for item in labelled if item.part == part]
        (folder / "images" / part).mkdir(parents=True, exist_ok=True)
        if wishes.form is Form.COCO:
            _write_json(folder / "annotations" / f"instances_{part}.json", coco_instances(of_part, labels))
            continue
        texts = folder / "labels" / part
        texts.mkdir(parents=True, exist_ok=True)
        for item in of_part:
            (texts / f"{Path(item.file_name).stem}.txt").write_text(yolo_lines(item, labels))
    if wishes.form is Form.YOLO:
        (folder / "data.yaml").write_text(yolo_yaml(labels))


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1))
