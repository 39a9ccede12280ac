"""Two models side by side on the same pictures: how well their boxes agree, and how fast each is."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inference.engine.detector import Detector
from streamer.model_tools.agreement import Agreement
from streamer.model_tools.images import Frame, Pictures
from streamer.model_tools.stopwatch import time_in_turns


@dataclass(frozen=True, slots=True)
class Speed:
    """Median seconds of one run of the smallest batch, original and result measured in turns."""

    where: str
    original_s: float
    result_s: float

    @property
    def gain(self) -> float:
        """How many times as fast the result is."""
        return self.original_s / max(self.result_s, 1e-9)


def open_detector(path: Path, device: str = "cpu", threads: int = 1) -> Detector:
    """Load a model as the service does. Raises ModelRefused or DeviceUnavailable."""
    return Detector(path, version="optimize", device=device, batch_max=1, threads=threads)


def compare_boxes(
    original: Detector, other: Detector, pictures: Pictures, on_picture: Callable[[int], None]
) -> Agreement:
    """Return how the boxes of ``other`` agree with those of ``original``, letterboxed as they are.

    Both have the same input. ``on_picture`` hears how many are done.
    """
    params = original.model.default_params
    result = Agreement()
    for _, frame in pictures.frames(original.model):
        boxes = [
            detector.postprocess(detector.infer([frame], lane=0), 0, params) for detector in (original, other)
        ]
        result.add(*boxes)
        on_picture(result.pictures)
    return result


def compare_speed(original: Path, result: Path, device: str, seconds: float) -> list[Speed]:
    """Time both models, on a CPU with one core and with all, elsewhere on the device."""
    cores = len(os.sched_getaffinity(0))
    if device != "cpu":
        return [_timed(original, result, device, 1, seconds, device)]
    speeds = [_timed(original, result, device, 1, seconds, "one core")]
    if cores > 1:
        speeds.append(_timed(original, result, device, cores, seconds, f"{cores} cores"))
    return speeds


def _timed(original: Path, result: Path, device: str, threads: int, seconds: float, where: str) -> Speed:
    detectors = [open_detector(path, device, threads) for path in (original, result)]
    try:
        model = detectors[0].model
        frame: Frame = np.random.default_rng(0).integers(
            0, 255, (model.input_height, model.input_width, 3), np.uint8
        )
        frames = [frame] * detectors[0].buckets[0]

        def run(detector: Detector) -> Callable[[], object]:
            return lambda: detector.infer(frames, lane=0)

        return Speed(where, *time_in_turns([run(detector) for detector in detectors], seconds))
    finally:
        for detector in detectors:
            detector.close()
