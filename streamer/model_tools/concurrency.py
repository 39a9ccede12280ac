"""Measures how long a run takes while the other inference threads run, too, as they do under load."""

from __future__ import annotations

import statistics
import threading
import time
from dataclasses import dataclass

import numpy as np

from inference.engine.detector import Detector

#: Seconds for which all threads run. Their first runs, which make their arrays, are not counted.
MEASURED_S = 1.0


@dataclass(frozen=True, slots=True)
class AtOnce:
    """Holds the median seconds of a run of ``batch`` frames while ``threads`` threads run without a pause."""

    threads: int
    batch: int
    run_s: float


def measure_at_once(detector: Detector, threads: int, batch: int, seconds: float = MEASURED_S) -> AtOnce:
    """Let ``threads`` threads run batches at the same time; raises the first error of a run."""
    shape = (detector.image.height, detector.image.width, 3)
    frames = [np.full(shape, detector.layout.convention.pad_value, np.uint8)] * batch
    begin, durations_s = threading.Barrier(threads), list[float]()
    errors: list[BaseException] = []

    def run(thread: int) -> None:
        try:
            detector.infer(frames, thread=thread)
            begin.wait()
            end = time.perf_counter() + seconds
            while (begun := time.perf_counter()) < end or not durations_s:
                detector.infer(frames, thread=thread)
                durations_s.append(time.perf_counter() - begun)
        except threading.BrokenBarrierError:
            return  # another thread has failed
        except Exception as error:  # noqa: BLE001 - raised again below, in the calling thread
            errors.append(error)
            begin.abort()

    started = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    if errors:
        raise errors[0]
    return AtOnce(threads, batch, statistics.median(durations_s))
