"""From a model file to an optimised one beside it: builds it, proves that it is served, and compares both."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from inference.core.errors import DeviceUnavailable
from inference.engine.detector import Detector
from streamer.model_tools import graph
from streamer.model_tools.agreement import Agreement
from streamer.model_tools.comparison import Speed, compare_boxes, compare_speed, open_detector
from streamer.model_tools.drafts import Drafts
from streamer.model_tools.half import to_half
from streamer.model_tools.images import Pictures
from streamer.model_tools.int8 import Quantised, make_int8
from streamer.model_tools.offline import optimise_offline

Tell = Callable[[str, float], None]


class Precision(StrEnum):
    """Arithmetic of the result."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is to be made of which file."""

    source: Path
    target: Path
    for_gpu: bool
    precision: Precision
    pictures: Pictures | None
    #: Recall and precision that an 8-bit model should have, 0..1.
    wanted: float
    #: Seconds for each timing.
    timing_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was made, and how it compares."""

    task: Task
    sha256: str
    bytes_before: int
    bytes_after: int
    load_before_s: float
    load_after_s: float
    device: str
    #: None without pictures.
    agreement: Agreement | None
    speeds: tuple[Speed, ...]
    quantised: Quantised | None
    #: Why the device asked for was not used; empty where it was.
    no_gpu: str = ""


def optimise(task: Task, tell: Tell) -> Outcome:
    """Build, check and compare; the result is put into place only when the service takes it.

    Raises ModelRefused (of the original, or of the result), CannotWrite or BadRequest.
    """
    device, no_gpu = _device_of(task)
    tell("loading the original", 0.0)
    original, load_before_s = _open(task.source, device)
    try:
        with Drafts(task.source, task.target) as drafts:
            draft, quantised = _build(task, original, drafts, tell)
            tell("loading the result", 0.0)
            result, load_after_s = _open(draft, device)
            try:
                agreement = _compare(task, original, result, tell)
            finally:
                result.close()
            tell("timing", 0.0)
            # On another device than the one meant, times would say nothing.
            speeds = [] if no_gpu else compare_speed(task.source, draft, device, task.timing_s)
            outcome = Outcome(
                task=task,
                sha256=result.model.sha256,
                bytes_before=task.source.stat().st_size,
                bytes_after=draft.stat().st_size,
                load_before_s=load_before_s,
                load_after_s=load_after_s,
                device=device,
                agreement=agreement,
                speeds=tuple(speeds),
                quantised=quantised,
                no_gpu=no_gpu,
            )
            drafts.put_into_place(draft, outcome.sha256, f".{task.precision}")
            return outcome
    finally:
        original.close()


def _device_of(task: Task) -> tuple[str, str]:
    """Return where both models run, and why that is not the GPU that was asked for."""
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


def _build(task: Task, original: Detector, drafts: Drafts, tell: Tell) -> tuple[Path, Quantised | None]:
    """Write the result as a draft."""
    tell("optimising", 0.0)
    model, source, quantised = graph.read_graph(task.source), task.source, None
    metadata = graph.metadata_of(model)
    if task.precision is Precision.INT8:
        source = drafts.path("raised")
        graph.write_graph(graph.raised(model, task.source), source)
    optimised = drafts.path("optimised")
    optimise_offline(source, optimised, fused=task.precision is Precision.FP32 and not task.for_gpu)
    model = graph.with_names(graph.without_unused_opsets(graph.read_graph(optimised)))
    if task.precision is Precision.FP16:
        tell("halving", 0.0)
        model = to_half(model)
    elif task.precision is Precision.INT8 and task.pictures is not None:
        quantised = make_int8(model, original, task.pictures, drafts.path, wanted=task.wanted, tell=tell)
        model = graph.read_graph(quantised.path)
    metadata["optimised"] = f"{task.precision} of sha256 {original.model.sha256}"
    path = drafts.path("result")
    graph.write_graph(graph.set_metadata(graph.without_unused_opsets(model), metadata), path)
    return path, quantised


def _compare(task: Task, original: Detector, result: Detector, tell: Tell) -> Agreement | None:
    pictures = task.pictures
    if pictures is None:
        return None
    return compare_boxes(original, result, pictures, lambda done: tell("comparing", done / len(pictures)))
