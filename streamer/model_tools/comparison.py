"""Compares two models: how well their boxes agree on the same images, and how fast each is."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inference.engine.detector import Detector
from streamer.model_tools.agreement import Agreement
from streamer.model_tools.model_inputs import Frame, ImageFiles

#: Rounds of a time measurement, at least and at most.
LEAST_ROUNDS = 5
MOST_ROUNDS = 200


@dataclass(frozen=True, slots=True)
class Speed:
    """Median seconds of one run of the smallest batch, with original and result measured alternately."""

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
    """Time both models on the device; on a CPU with one core and with all cores."""
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
