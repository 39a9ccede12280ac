"""Runs beside those of other threads are timed while all threads run, and an error of one ends all."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from streamer.model_tools.concurrency import measure_at_once

if TYPE_CHECKING:
    from inference.engine.detector import Detector


class OneAtATime:
    """A detector whose runs exclude each other, as on a device that is busy with one run."""

    image = SimpleNamespace(height=4, width=6)
    layout = SimpleNamespace(convention=SimpleNamespace(pad_value=114))
    fails_in = -1

    def __init__(self) -> None:
        self.seen: set[tuple[int, int, tuple[int, ...]]] = set()
        self._lock = threading.Lock()

    def infer(self, frames: Sequence[Any], *, thread: int) -> None:
        self.seen.add((thread, len(frames), frames[0].shape))
        if thread == self.fails_in:
            raise RuntimeError("no memory")
        with self._lock:
            time.sleep(0.002)
        time.sleep(0.0001)  # gives the lock to another thread


def test_all_threads_run_the_batch() -> None:
    detector = OneAtATime()
    found = measure_at_once(cast("Detector", detector), 3, 2, seconds=0.2)
    assert (found.threads, found.batch) == (3, 2)
    assert found.run_s > 0.0025  # a run alone takes 2.1 ms; here two others are usually before it
    assert detector.seen == {(thread, 2, (4, 6, 3)) for thread in range(3)}


def test_an_error_of_one_thread_is_raised() -> None:
    detector = OneAtATime()
    detector.fails_in = 1
    with pytest.raises(RuntimeError, match="no memory"):
        measure_at_once(cast("Detector", detector), 3, 1, seconds=60.0)
