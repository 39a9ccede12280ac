"""Builds an optimised model file, verifies that the service accepts it, and compares it with the original."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from inference.core.errors import DeviceUnavailable
from inference.engine.detector import Detector
from inference.models import fields
from inference.models.manifest import manifest_path
from streamer.model_tools import graph
from streamer.model_tools.agreement import Agreement
from streamer.model_tools.comparison import Speed, compare_boxes, compare_speed, open_detector
from streamer.model_tools.float16 import to_float16
from streamer.model_tools.int8 import Int8Model, OnProgress, make_int8
from streamer.model_tools.model_inputs import ImageFiles
from streamer.model_tools.ort_session import optimise_offline
from streamer.model_zoo.errors import CannotWrite
from streamer.model_zoo.model_folder import write_manifest


class Precision(StrEnum):
    """Arithmetic of the result."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Which file to optimise, and how."""

    source: Path
    target: Path
    for_gpu: bool
    precision: Precision
    images: ImageFiles | None
    #: Recall and precision that an 8-bit model should reach, 0..1.
    min_agreement: float
    #: Seconds for each time measurement.
    timing_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result, and its comparison with the original."""

    task: Task
    sha256: str
    bytes_before: int
    bytes_after: int
    load_before_s: float
    load_after_s: float
    device: str
    #: None without images.
    agreement: Agreement | None
    speeds: tuple[Speed, ...]
    int8: Int8Model | None
    #: Why the requested GPU was not used; empty if it was.
    no_gpu: str = ""


def optimise(task: Task, on_progress: OnProgress) -> Outcome:
    """Build, verify and compare; the result is installed only if the service accepts it.

    Raises ModelRefused (of the original, or of the result), CannotWrite or BadRequest.
    """
    device, no_gpu = _device_of(task)
    on_progress("loading the original", 0.0)
    original, load_before_s = _open(task.source, device)
    try:
        with WorkFolder(task.source, task.target) as work:
            built, int8 = _build(task, original, work, on_progress)
            on_progress("loading the result", 0.0)
            result, load_after_s = _open(built, device)
            try:
                agreement = _compare(task, original, result, on_progress)
            finally:
                result.close()
            on_progress("timing", 0.0)
            # Times on another device than the intended one would be misleading.
            speeds = [] if no_gpu else compare_speed(task.source, built, device, task.timing_s)
            outcome = Outcome(
                task=task,
                sha256=result.model.sha256,
                bytes_before=task.source.stat().st_size,
                bytes_after=built.stat().st_size,
                load_before_s=load_before_s,
                load_after_s=load_after_s,
                device=device,
                agreement=agreement,
                speeds=tuple(speeds),
                int8=int8,
                no_gpu=no_gpu,
            )
            work.install(built, outcome.sha256, f".{task.precision}")
            return outcome
    finally:
        original.close()


def _device_of(task: Task) -> tuple[str, str]:
    """Return the device for both models, and why it is not the GPU if that was requested."""
    if not task.for_gpu:
        return "cpu", ""
    try:
        open_detector(task.source, "cuda").close()
    except DeviceUnavailable as error:
        return "cpu", str(error)
    return "cuda", ""


def _open(path: Path, device: str) -> tuple[Detector, float]:
    begun = time.perf_counter()
    detector = open_detector(path, device)
    return detector, time.perf_counter() - begun


def _build(
    task: Task, original: Detector, work: WorkFolder, on_progress: OnProgress
) -> tuple[Path, Int8Model | None]:
    """Write the result to the work folder."""
    on_progress("optimising", 0.0)
    model, source, int8 = graph.read_graph(task.source), task.source, None
    metadata = graph.metadata_of(model)
    if task.precision is Precision.INT8:
        source = work.path("newer-opset")
        graph.write_graph(graph.with_newer_opset(model, task.source), source)
    optimised = work.path("optimised")
    optimise_offline(source, optimised, fused=task.precision is Precision.FP32 and not task.for_gpu)
    model = graph.with_names(graph.without_unused_opsets(graph.read_graph(optimised)))
    if task.precision is Precision.FP16:
        on_progress("converting to float16", 0.0)
        model = to_float16(model)
    elif task.precision is Precision.INT8 and task.images is not None:
        int8 = make_int8(
            model, original, task.images, work.path, min_agreement=task.min_agreement, on_progress=on_progress
        )
        model = graph.read_graph(int8.path)
    metadata["optimised"] = f"{task.precision} of sha256 {original.model.sha256}"
    path = work.path("result")
    graph.write_graph(graph.set_metadata(graph.without_unused_opsets(model), metadata), path)
    return path, int8


def _compare(task: Task, original: Detector, result: Detector, on_progress: OnProgress) -> Agreement | None:
    images = task.images
    if images is None:
        return None
    return compare_boxes(original, result, images, lambda done: on_progress("comparing", done / len(images)))


class WorkFolder:
    """A hidden folder beside the target for temporary models, so that the result is renamed into place.

    A context manager; the folder is removed at the end.
    """

    def __init__(self, source: Path, target: Path) -> None:
        self._target = target
        #: Fields of the original's manifest that hold for the results too; None if it has no manifest.
        self._manifest = _inherited(source)
        #: None until entered.
        self._folder: Path | None = None

    def __enter__(self) -> Self:
        parent = self._target.parent
        try:
            parent.mkdir(parents=True, exist_ok=True)
            self._folder = Path(tempfile.mkdtemp(prefix=".optimize-", dir=parent))
        except OSError as error:
            raise CannotWrite(f"{parent}: {error.strerror or error}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def path(self, name: str) -> Path:
        """Return a path for a temporary model, with a copy of the original's manifest beside it."""
        if self._folder is None:
            raise RuntimeError("the work folder exists only inside `with`")
        path = self._folder / f"{name}.onnx"
        if self._manifest is not None:
            write_manifest(path, self._manifest)
        return path

    def install(self, model: Path, sha256: str, suffix: str) -> None:
        """Rename a temporary model to the target, and write its manifest. Raises CannotWrite."""
        manifest = manifest_path(self._target)
        try:
            if self._manifest is None:
                # A manifest at the target belongs to the file that is replaced.
                manifest.unlink(missing_ok=True)
            else:
                named = {"name": f"{self._manifest['name']}{suffix}"} if "name" in self._manifest else {}
                write_manifest(self._target, self._manifest | named | {"sha256": sha256})
            model.replace(self._target)
        except OSError as error:
            raise CannotWrite(f"{self._target}: {error.strerror or error}") from error


def _inherited(source: Path) -> dict[str, Any] | None:
    """Return the fields of the manifest without the checksum. It was read before, so it is valid."""
    try:
        values = fields.read_object(manifest_path(source).read_bytes())
    except OSError:
        return None
    return {name: value for name, value in values.items() if name != "sha256"}
