"""Compares two models by their detections."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from inference.core.detections import Boxes
from inference.core.overlap import match
from inference.engine.detector import Detector
from streamer.model_tools.model_inputs import Frame, ImageFiles

#: IoU from which two boxes of one class count as the same object.
MATCH_IOU = 0.5


@dataclass(slots=True)
class Agreement:
    """Counts how the found boxes agree with the reference's, which are the ground truth, over all images.

    A share of no boxes is 1.
    """

    images: int = 0
    reference: int = 0
    found: int = 0
    ious: list[float] = field(default_factory=list)
    #: Score of the found box minus that of the reference, for each match.
    score_changes: list[float] = field(default_factory=list)

    def add(self, reference: Boxes, found: Boxes) -> None:
        """Count one image: boxes (N, 6) and (M, 6) of x1, y1, x2, y2, score, class, sorted by score.

        Each box matches at most one other; the pair with the highest IoU is matched first.
        """
        self.images += 1
        self.reference += len(reference)
        self.found += len(found)
        for row, column, overlap in match(reference, found, MATCH_IOU):
            self.ious.append(overlap)
            self.score_changes.append(float(found[column, 4] - reference[row, 4]))

    @property
    def recall(self) -> float:
        """Share of the reference's boxes that were found, 0..1."""
        return len(self.ious) / self.reference if self.reference else 1.0

    @property
    def precision(self) -> float:
        """Share of the found boxes that the reference also has, 0..1."""
        return len(self.ious) / self.found if self.found else 1.0

    @property
    def worst(self) -> float:
        """The smaller of recall and precision."""
        return min(self.recall, self.precision)

    @property
    def mean_iou(self) -> float:
        """Mean IoU of matched boxes, 0..1."""
        return float(np.mean(self.ious)) if self.ious else 1.0

    @property
    def mean_score_change(self) -> float:
        """Mean absolute change of a score, 0..1."""
        return float(np.mean(np.abs(self.score_changes))) if self.score_changes else 0.0

    @property
    def largest_score_change(self) -> float:
        """Largest absolute change of a score, 0..1."""
        return float(np.max(np.abs(self.score_changes))) if self.score_changes else 0.0


#: Minimum and maximum number of rounds of a time measurement.
LEAST_ROUNDS = 5
MOST_ROUNDS = 200


@dataclass(frozen=True, slots=True)
class Speed:
    """Holds the median seconds of one run of the smallest batch; the two models were timed alternately."""

    where: str
    original_s: float
    result_s: float

    @property
    def gain(self) -> float:
        """Ratio of the speeds: 2 means that the result is twice as fast."""
        return self.original_s / max(self.result_s, 1e-9)


def open_detector(path: Path, device: str = "cpu", threads: int = 1) -> Detector:
    """Load a model as the service does. Raises ModelRefused or DeviceUnavailable."""
    return Detector(path, version="optimize", device=device, batch_max=1, threads=threads)


def compare_boxes(
    original: Detector, other: Detector, images: ImageFiles, on_image: Callable[[int], None]
) -> Agreement:
    """Return how the boxes of ``other`` agree with those of ``original``, in pixels of the model input.

    Both models have the same input. ``on_image`` is called with the number of images done.
    """
    params = original.model.default_params
    result = Agreement()
    for _, frame in images.frames(original.model):
        boxes = [
            detector.postprocess(detector.infer([frame], thread=0), 0, params)
            for detector in (original, other)
        ]
        result.add(*boxes)
        on_image(result.images)
    return result


def compare_speed(original: Path, result: Path, device: str, seconds: float) -> list[Speed]:
    """Time both models on the device; on a CPU, time them with one core and with all cores."""
    cores = len(os.sched_getaffinity(0))
    if device != "cpu":
        return [_timed(original, result, device, 1, seconds, device)]
    speeds = [_timed(original, result, device, 1, seconds, "one core")]
    if cores > 1:
        speeds.append(_timed(original, result, device, cores, seconds, f"{cores} cores"))
    return speeds


def time_alternately(
    functions: Sequence[Callable[[], object]], seconds: float, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Return the median seconds of each function, from rounds that take about ``seconds`` in all.

    Each round calls every function once, so that other load on the machine slows all of them alike. The first
    call of each, which allocates memory, does not count.
    """
    times: list[list[float]] = [[] for _ in functions]
    for function in functions:
        function()
    deadline = clock() + seconds
    for round_number in range(MOST_ROUNDS):
        if round_number >= LEAST_ROUNDS and clock() >= deadline:
            break
        for index, function in enumerate(functions):
            begun = clock()
            function()
            times[index].append(clock() - begun)
    return [statistics.median(rounds) for rounds in times]


def _timed(original: Path, result: Path, device: str, threads: int, seconds: float, where: str) -> Speed:
    detectors = [open_detector(path, device, threads) for path in (original, result)]
    try:
        model = detectors[0].model
        frame: Frame = np.random.default_rng(0).integers(
            0, 255, (model.input_height, model.input_width, 3), np.uint8
        )
        frames = [frame] * detectors[0].buckets[0]

        def run(detector: Detector) -> Callable[[], object]:
            return lambda: detector.infer(frames, thread=0)

        return Speed(where, *time_alternately([run(detector) for detector in detectors], seconds))
    finally:
        for detector in detectors:
            detector.close()
