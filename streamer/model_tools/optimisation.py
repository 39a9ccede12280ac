"""Optimises a model, compares the result with the original, installs it, and reports."""

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
from streamer.model_tools.comparison import (
    MATCH_IOU,
    Agreement,
    Speed,
    compare_boxes,
    compare_speed,
    open_detector,
)
from streamer.model_tools.float16 import to_float16
from streamer.model_tools.int8_search import Int8Model, OnProgress, make_int8
from streamer.model_tools.model_inputs import ImageFiles, optimise_offline
from streamer.model_zoo.download_url import CannotWrite
from streamer.model_zoo.model_folder import write_manifest
from streamer.model_zoo.registry import size_text


class Precision(StrEnum):
    """Names the arithmetic of the result."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """States which file to optimise, and how."""

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
    """Describes the result, and compares it with the original."""

    task: Task
    sha256: str
    bytes_before: int
    bytes_after: int
    load_before_s: float
    load_after_s: float
    device: str
    #: None if there were no images.
    agreement: Agreement | None
    speeds: tuple[Speed, ...]
    int8: Int8Model | None
    #: Why the requested GPU was not used; empty if it was.
    no_gpu: str = ""


def optimise(task: Task, on_progress: OnProgress) -> Outcome:
    """Optimise a model, compare it with the original, and install it if the service accepts it.

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
    """Keeps temporary models in a hidden folder beside the target, so that one can be renamed into place.

    This is a context manager; it removes the folder at the end.
    """

    def __init__(self, source: Path, target: Path) -> None:
        self._target = target
        #: Fields of the original's manifest that hold for the results too; None if it has no manifest.
        self._manifest = _inherited(source)
        #: None until the context is entered.
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
                # The original has no manifest, so a manifest at the target describes the replaced file.
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


#: A smaller gain in speed is not worth the loss of accuracy.
_WORTHWHILE_GAIN = 1.03
#: With fewer boxes, the accuracy is uncertain; with fewer images, the calibration is uncertain.
_FEW_BOXES = 50
_FEW_IMAGES = 16


def report_text(outcome: Outcome) -> str:
    """Return the report as text."""
    task = outcome.task
    lines = [f"{task.target}: {task.precision} for {'a GPU' if task.for_gpu else 'the CPU'}"]
    lines.append(f"  size      {size_text(outcome.bytes_before)} -> {size_text(outcome.bytes_after)}")
    lines.append(f"  loading   {outcome.load_before_s * 1e3:.0f} ms -> {outcome.load_after_s * 1e3:.0f} ms")
    if outcome.int8 is not None:
        int8 = outcome.int8
        kept = ""
        if int8.float32_layers:
            kept = f", {int8.float32_layers} kept in float32 because they lose too much"
        lines.append(f"  layers    {int8.layers - int8.float32_layers} of {int8.layers} in 8 bits{kept}")
        lines.append(f"            calibrated on {int8.calibrated} images")
    lines += _agreement_lines(outcome.agreement)
    lines += [f"  speed     {_speed_text(speed)}" for speed in outcome.speeds]
    if outcome.no_gpu:
        lines.append(f"  speed     not measured: {outcome.no_gpu}")
        lines.append(
            "            the boxes were compared on the CPU, which computes half precision in float32"
        )
    lines += [f"- {remark}" for remark in remarks(outcome)]
    return "\n".join(lines)


def _agreement_lines(agreement: Agreement | None) -> list[str]:
    if agreement is None:
        return ["  accuracy  not measured: pass images with --images"]
    if not agreement.reference and not agreement.found:
        return [f"  accuracy  unknown: neither model finds anything on {agreement.images} images"]
    return [
        f"  accuracy  {agreement.recall:.1%} of the original's {agreement.reference} boxes found, "
        f"{agreement.precision:.1%} of the {agreement.found} found are the original's",
        f"            (same class, IoU of {MATCH_IOU} or more, {agreement.images} images)",
        f"            matched boxes: mean IoU {agreement.mean_iou:.3f}, scores off by "
        f"{agreement.mean_score_change:.3f} on average, {agreement.largest_score_change:.3f} at most",
    ]


def _speed_text(speed: Speed) -> str:
    return (
        f"{speed.original_s * 1e3:.1f} ms -> {speed.result_s * 1e3:.1f} ms on {speed.where}: "
        f"{speed.gain:.2f} times as fast"
    )


def remarks(outcome: Outcome) -> list[str]:
    """Return what users should know before they serve the result."""
    found = []
    agreement = outcome.agreement
    if agreement is not None and agreement.worst < outcome.task.min_agreement:
        found.append(
            f"The boxes agree to {agreement.worst:.1%}, less than the {outcome.task.min_agreement:.0%} "
            "wanted (--agreement): test it on your own data before you serve it."
        )
    if agreement is not None and agreement.reference < _FEW_BOXES:
        found.append(f"{agreement.reference} boxes are few to judge by; use more images.")
    if outcome.speeds and max(speed.gain for speed in outcome.speeds) < _WORTHWHILE_GAIN:
        found.append(
            "Only loading becomes faster: ONNX Runtime optimises the original in the same way at each start."
            if outcome.task.precision is Precision.FP32
            else "It is not faster on this machine: the original is the better choice here."
        )
    if outcome.int8 is not None and outcome.int8.calibrated < _FEW_IMAGES:
        found.append(f"{outcome.int8.calibrated} images are few to calibrate on; use 50 or more.")
    return found


def report_json(outcome: Outcome) -> dict[str, Any]:
    """Return the report as plain JSON types."""
    agreement, int8 = outcome.agreement, outcome.int8
    return {
        "file": str(outcome.task.target),
        "source": str(outcome.task.source),
        "precision": outcome.task.precision.value,
        "device": outcome.device,
        "sha256": outcome.sha256,
        "bytes": {"original": outcome.bytes_before, "result": outcome.bytes_after},
        "load_ms": {
            "original": round(outcome.load_before_s * 1e3, 1),
            "result": round(outcome.load_after_s * 1e3, 1),
        },
        "layers": None
        if int8 is None
        else {"all": int8.layers, "spared": int8.float32_layers, "calibrated_on": int8.calibrated},
        "accuracy": None if agreement is None else _agreement_json(agreement),
        "speed": [
            {
                "where": speed.where,
                "original_ms": round(speed.original_s * 1e3, 3),
                "result_ms": round(speed.result_s * 1e3, 3),
                "gain": round(speed.gain, 3),
            }
            for speed in outcome.speeds
        ],
        "remarks": remarks(outcome),
    }


def _agreement_json(agreement: Agreement) -> dict[str, Any]:
    return {
        "pictures": agreement.images,
        "original_boxes": agreement.reference,
        "result_boxes": agreement.found,
        "recall": round(agreement.recall, 4),
        "precision": round(agreement.precision, 4),
        "mean_iou": round(agreement.mean_iou, 4),
        "mean_score_change": round(agreement.mean_score_change, 4),
        "largest_score_change": round(agreement.largest_score_change, 4),
    }
