"""Loads a model as the service would and notes all that can be said about it; `report` writes it down."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from inference.core.batch_sizes import worthwhile_buckets
from inference.core.errors import ModelRefused
from inference.engine.detector import Detector
from inference.models.coco import COCO_80, COCO_91
from inference.models.family import Convention
from inference.models.labels import parse_names
from inference.models.manifest import Manifest, read_manifest
from inference.models.model import ModelInfo
from inference.models.signature import DEFAULT_INPUT_PX, Graph, ImageInput
from streamer.model_zoo.onnx_header import NotOnnx, OnnxHeader, licence_of, read_header

#: Hears what is done at the moment, and how much of the whole is done, 0..1.
Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one run of a batch. ``all_cores_s`` is None where there is one core, or an accelerator."""

    batch: int
    one_core_s: float
    all_cores_s: float | None


@dataclass(frozen=True, slots=True)
class Served:
    """What the service would make of the file."""

    model: ModelInfo
    graph: Graph
    image: ImageInput
    #: Names of the outputs that are read.
    outputs: tuple[str, ...]
    convention: Convention
    manifest: Manifest
    buckets: tuple[int, ...]
    cores: int
    timings: tuple[Timing, ...] = ()
    #: Batches that the service would form, by these timings.
    formed: tuple[int, ...] = ()


@dataclass(slots=True, kw_only=True)
class Examination:
    """All that is known of one file. Either ``refusal`` or ``served`` is set."""

    path: Path
    size: int | None = None
    sha256: str | None = None
    header: OnnxHeader = field(default_factory=OnnxHeader)
    refusal: ModelRefused | None = None
    served: Served | None = None

    @property
    def licence(self) -> str | None:
        """The licence by manifest or metadata; None where neither says."""
        ours = self.served.manifest.licence if self.served else None
        return ours or licence_of(self.header.metadata)

    def remarks(self) -> list[str]:
        """Return what could be better although the file is served."""
        return _remarks(self, self.served) if self.served is not None else []


def examine(
    path: Path, *, device: str, batch_max: int, timing: bool = True, progress: Progress | None = None
) -> Examination:
    """Load, probe and, with ``timing``, measure a model.

    A refusal is part of the answer. Raises DeviceUnavailable when the device cannot be used.
    """
    told = progress or (lambda text, share: None)
    told(f"loading {path.name}", 0.0)
    result = Examination(path=path)
    try:
        result.size = path.stat().st_size
        result.header = read_header(path)
    except (OSError, NotOnnx):
        pass  # the detector says the same, and how to mend it
    try:
        result.served = _load(path, device, batch_max, timing, told)
        result.sha256 = result.served.model.sha256
    except ModelRefused as error:
        result.refusal = error
        result.sha256 = _sha256_of(path)
    return result


def _load(path: Path, device: str, batch_max: int, timing: bool, told: Progress) -> Served:
    detector = Detector(path, version="check", device=device, batch_max=batch_max)
    try:
        cores = len(os.sched_getaffinity(0))
        on_all = timing and cores > 1 and detector.model.provider == "cpu"
        steps = len(detector.buckets) * (2 if on_all else 1)
        # The very warm-up of the service: it tries each batch too, and may still refuse.
        detector.warm_up(
            on_bucket=_counted(told, "one core" if on_all else detector.model.provider, 0, steps)
        )
        one_core_s, all_cores_s = dict(detector.cost_s), dict[int, float]()
        if on_all:
            all_cores_s = _on_all_cores(path, batch_max, cores, told, steps)
        return Served(
            detector.model,
            detector.graph,
            detector.image,
            detector.layout.outputs,
            detector.layout.convention,
            read_manifest(path),
            detector.buckets,
            cores,
            tuple(
                Timing(batch, cost_s, all_cores_s.get(batch))
                for batch, cost_s in one_core_s.items()
                if timing
            ),
            worthwhile_buckets(one_core_s),
        )
    finally:
        detector.close()


def _on_all_cores(path: Path, batch_max: int, cores: int, told: Progress, steps: int) -> dict[int, float]:
    detector = Detector(path, version="check", device="cpu", batch_max=batch_max, threads=cores)
    try:
        detector.warm_up(on_bucket=_counted(told, f"{cores} cores", len(detector.buckets), steps))
        return dict(detector.cost_s)
    finally:
        detector.close()


def _counted(told: Progress, where: str, done: int, steps: int) -> Callable[[int], None]:
    """Return what hears of buckets and tells how far the whole is."""
    count = done

    def on_bucket(batch: int) -> None:
        nonlocal count
        told(f"timing batch {batch} on {where}", count / steps)
        count += 1

    return on_bucket


def _sha256_of(path: Path) -> str | None:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return None


def label_source(served: Served) -> str:
    """Return where the class names come from, for people."""
    labels = served.model.labels
    if served.manifest.labels:
        return "named by the manifest"
    if parse_names(served.graph.metadata.get("names", "")):
        return "named by the metadata"
    if labels in (COCO_80, COCO_91):
        return "taken for COCO's, by their number"
    return "without names"


def _remarks(result: Examination, served: Served) -> list[str]:
    found = []
    source = label_source(served)
    if source not in ("named by the manifest", "named by the metadata"):
        found.append(
            f"The file names no classes; its {len(served.model.labels)} are {source}. "
            f"`labels` in {result.path.stem}.json names them."
        )
    sizes = next(tensor.shape[2:] for tensor in served.graph.inputs if tensor.name == served.image.name)
    named = served.manifest.input is not None or "imgsz" in served.graph.metadata
    if None in sizes and not named:
        found.append(
            "The input size is dynamic and nothing names one, so it is "
            f"{DEFAULT_INPUT_PX}x{DEFAULT_INPUT_PX}; `input` in {result.path.stem}.json sets it."
        )
    if served.image.batch is not None and served.model.provider != "cpu":
        found.append(f"The batch is fixed at {served.image.batch}: a GPU gains by a dynamic one.")
    if served.image.half and served.model.provider == "cpu":
        found.append("Half precision is for GPUs: a CPU computes it in single precision, and converts.")
    if result.licence is None:
        found.append(f"No licence is recorded; `licence` in {result.path.stem}.json does that.")
    return found
