"""Loads a model as the service would and collects what is known about it; `check_report` formats it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from inference.core.errors import ModelRefused
from inference.core.warmup import worthwhile_buckets
from inference.engine.detector import Detector
from inference.models.class_names import COCO_80, COCO_91, duplicates, parse_names
from inference.models.labels import given_names
from inference.models.layout import Convention
from inference.models.manifest import Manifest, read_manifest
from inference.models.model import ModelInfo
from inference.models.onnx_header import NotOnnx, OnnxHeader, licence_of, read_header
from inference.models.signature import DEFAULT_INPUT_PX, Graph, ImageInput
from streamer.model_tools.concurrency import AtOnce, measure_at_once
from streamer.model_tools.wake_up import measure_wake_up

#: Called with the current step and the progress of the whole inspection, 0..1.
OnProgress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Timing:
    """Holds the seconds of one run of a batch.

    ``all_cores_s`` is None if there is a single core, or on an accelerator.
    """

    batch: int
    one_core_s: float
    all_cores_s: float | None


@dataclass(frozen=True, slots=True)
class ServedModel:
    """Describes how the service would serve the file."""

    model: ModelInfo
    graph: Graph
    image: ImageInput
    #: Names of the outputs that the service reads.
    outputs: tuple[str, ...]
    convention: Convention
    manifest: Manifest
    buckets: tuple[int, ...]
    cores: int
    timings: tuple[Timing, ...] = ()
    #: Batch sizes that the service would form, according to these timings.
    formed: tuple[int, ...] = ()
    #: A run of the largest of these batches beside others; None without timings, or with a single core.
    at_once: AtOnce | None = None
    #: Mean seconds until a process that sleeps gets a message; None without timings.
    wake_up_s: float | None = None
    #: What users should know about how the outputs are read.
    note: str = ""


@dataclass(slots=True, kw_only=True)
class Inspection:
    """Holds what is known about one file. Either ``refusal`` or ``served`` is set."""

    path: Path
    size: int | None = None
    sha256: str | None = None
    header: OnnxHeader = field(default_factory=OnnxHeader)
    refusal: ModelRefused | None = None
    served: ServedModel | None = None

    @property
    def licence(self) -> str | None:
        """The licence in the manifest or the metadata; None if neither has one."""
        from_manifest = self.served.manifest.licence if self.served else None
        return from_manifest or licence_of(self.header.metadata)

    def remarks(self) -> list[str]:
        """Return suggestions for a file that the service would serve."""
        return _remarks(self, self.served) if self.served is not None else []


def inspect_model(
    path: Path, *, device: str, batch_max: int, timing: bool = True, on_progress: OnProgress | None = None
) -> Inspection:
    """Load a model, run it once and, with ``timing``, measure it.

    A refusal is part of the result. Raises DeviceUnavailable when the device cannot be used.
    """
    report = on_progress or (lambda step, progress: None)
    report(f"loading {path.name}", 0.0)
    result = Inspection(path=path)
    try:
        result.size = path.stat().st_size
        result.header = read_header(path)
    except (OSError, NotOnnx):
        pass  # `_load` raises ModelRefused for the same problem, with a fix
    try:
        result.served = _load(path, device, batch_max, timing, report)
        result.sha256 = result.served.model.sha256
    except ModelRefused as error:
        result.refusal = error
        result.sha256 = _sha256_of(path)
    return result


def _load(path: Path, device: str, batch_max: int, timing: bool, on_progress: OnProgress) -> ServedModel:
    detector = Detector(path, version="check", device=device, batch_max=batch_max)
    try:
        cores = len(os.sched_getaffinity(0))
        on_all = timing and cores > 1 and detector.model.provider == "cpu"
        steps = len(detector.buckets) * (2 if on_all else 1)
        # This is the warm-up that the service does: it runs each batch size, and may still refuse the model.
        detector.warm_up(
            on_bucket=_progress_of_batches(
                on_progress, "one core" if on_all else detector.model.provider, 0, steps
            )
        )
        one_core_s, all_cores_s = dict(detector.cost_s), dict[int, float]()
        if on_all:
            all_cores_s = _on_all_cores(path, batch_max, cores, on_progress, steps)
        formed = worthwhile_buckets(one_core_s)
        return ServedModel(
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
            formed,
            _at_once(detector, cores, formed[-1], on_progress) if timing else None,
            measure_wake_up() if timing else None,
            detector.layout.note,
        )
    finally:
        detector.close()


def _at_once(detector: Detector, cores: int, batch: int, on_progress: OnProgress) -> AtOnce | None:
    """Measure runs in as many threads as the service would use; return None if it would use one."""
    # The same numbers as in `inference.engine.process`.
    threads = cores if detector.model.provider == "cpu" else 4 if detector.buckets == (1,) else 2
    if threads == 1:
        return None
    on_progress(f"timing batch {batch} in {threads} threads at once", 1.0)
    return measure_at_once(detector, threads, batch)


def _on_all_cores(
    path: Path, batch_max: int, cores: int, on_progress: OnProgress, steps: int
) -> dict[int, float]:
    detector = Detector(path, version="check", device="cpu", batch_max=batch_max, threads=cores)
    try:
        detector.warm_up(
            on_bucket=_progress_of_batches(on_progress, f"{cores} cores", len(detector.buckets), steps)
        )
        return dict(detector.cost_s)
    finally:
        detector.close()


def _progress_of_batches(on_progress: OnProgress, where: str, done: int, steps: int) -> Callable[[int], None]:
    """Return a callback for the warm-up that reports the progress of the whole inspection."""
    count = done

    def on_bucket(batch: int) -> None:
        nonlocal count
        on_progress(f"timing batch {batch} on {where}", count / steps)
        count += 1

    return on_bucket


def _sha256_of(path: Path) -> str | None:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return None


def label_source(served: ServedModel) -> str:
    """Return where the class names come from, as text."""
    labels = served.model.labels
    if served.manifest.labels:
        return "named by the manifest"
    if parse_names(served.graph.metadata.get("names", "")):
        return "named by the metadata"
    if labels == COCO_91:
        return "COCO's category ids, by their scores in a run"
    if labels == COCO_80:
        return "taken for COCO's, by their number"
    return "without names"


def _remarks(result: Inspection, served: ServedModel) -> list[str]:
    found = []
    source = label_source(served)
    if source not in ("named by the manifest", "named by the metadata"):
        unread = (
            "names that cannot be read"
            if served.graph.metadata.get("names", "").strip()
            else "no class names"
        )
        found.append(
            f"The file has {unread}; its {len(served.model.labels)} classes are {source}. "
            f"`labels` in {result.path.stem}.json sets them."
        )
    shape = next(tensor.shape for tensor in served.graph.inputs if tensor.name == served.image.name)
    sizes = shape[1:3] if served.image.channels_last else shape[2:]
    named = served.manifest.input is not None or "imgsz" in served.graph.metadata
    if None in sizes and not named:
        found.append(
            "The input size is dynamic, and neither manifest nor metadata sets it, so it is "
            f"{DEFAULT_INPUT_PX}x{DEFAULT_INPUT_PX}; `input` in {result.path.stem}.json sets it."
        )
    if served.image.batch is not None and served.model.provider != "cpu":
        found.append(f"The batch size is fixed at {served.image.batch}: on a GPU a dynamic one is faster.")
    if served.image.half and served.model.provider == "cpu":
        found.append("Half precision is for GPUs: a CPU converts it and computes in float32.")
    if served.note:
        found.append(served.note)
    if repeated := duplicates(given_names(served.manifest, served.graph.metadata)):
        where = "manifest" if served.manifest.labels else "metadata"
        found.append(
            f"The {where} names several classes {', '.join(map(repr, repeated[:8]))}; they are numbered "
            f"apart. `labels` in {result.path.stem}.json sets other names."
        )
    if result.licence is None:
        found.append(f"No licence is recorded; `licence` in {result.path.stem}.json sets it.")
    return found
