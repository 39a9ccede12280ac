"""Limits the batch size when a device has no memory for a batch, and ends the process when it is lost.

`batch_executor` runs the frames of the failed batch once more, one by one.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable
from typing import Protocol

from inference.engine.planner import Planner

log = logging.getLogger("inference.memory_relief")

#: Seconds after which larger batches are tried again.
RESTORE_AFTER_S = 60.0
#: When this many frames in a row fail for lack of memory even alone, the sessions are considered broken.
MAX_FAILED_ALONE = 3
#: Exit code when the device is lost or the sessions are broken, so that only a new process helps.
EXIT_DEVICE_LOST = 70
_STICKY = ("CUDA failure", "CUDA error", "CUDNN failure", "device lost", "uncorrectable ECC")
#: Parts of the messages of onnxruntime for failed allocations on the CPU, on CUDA, and in the CUDA arena.
_OUT_OF_MEMORY = ("bad allocation", "bad_alloc", "out of memory", "Failed to allocate memory")


class SupportsMemoryRelief(Protocol):
    """Defines the part of a detector that `MemoryRelief` uses."""

    def release_above(self, size: int) -> None:
        """Free what batches of more than ``size`` frames use."""

    def rehearse(self, thread: int) -> None:
        """Run every batch size once as ``thread``, which no other caller uses."""


def is_out_of_memory(error: Exception) -> bool:
    """Return whether a run failed because an allocation failed."""
    text = str(error)
    return isinstance(error, MemoryError) or any(sign in text for sign in _OUT_OF_MEMORY)


def exit_if_device_lost(error: Exception) -> None:
    """End the process when the device context is broken, because later results could be wrong."""
    text = str(error)
    # CUDA also reports "failure 2: out of memory", after which its context is still valid.
    if not is_out_of_memory(error) and any(sign in text for sign in _STICKY):
        log.critical("the device is lost, restarting the process: %s", text)
        os._exit(EXIT_DEVICE_LOST)


class MemoryRelief:
    """Halves the largest batch of a version that ran out of memory, and restores it later.

    ``lock`` guards the planner; ``spare_thread`` is a thread number that no inference thread uses.
    """

    def __init__(
        self,
        detectors: Iterable[SupportsMemoryRelief],
        planner: Planner,
        lock: threading.Condition,
        *,
        spare_thread: int,
    ) -> None:
        self._detectors = tuple(detectors)
        self._planner = planner
        self._lock = lock
        self._spare_thread = spare_thread
        #: Time at which larger batches of each version are tried again, monotonic seconds; 0: not needed.
        self._restore_at = [0.0] * len(self._detectors)
        self._failed_alone = [0] * len(self._detectors)
        self._restoring: threading.Thread | None = None

    def reduce(self, version: int, size: int, error: Exception) -> bool:
        """Return whether a batch failed because of memory. If so, limit the batch size for a while."""
        if not is_out_of_memory(error):
            return False
        if size > 1:
            with self._lock:
                self._planner.limit(version, size // 2)
            self._detectors[version].release_above(size // 2)
            log.warning("no memory for a batch of %d; the limit is %d for a while", size, size // 2)
        self._restore_at[version] = time.monotonic() + RESTORE_AFTER_S
        return True

    def ran_alone(self, version: int) -> None:
        """Record that a frame of a failed batch has run alone."""
        self._failed_alone[version] = 0

    def failed_alone(self, version: int, error: Exception) -> None:
        """Record that a frame failed alone, too. Ends the process if several in a row lacked memory."""
        if not is_out_of_memory(error):
            return
        self._failed_alone[version] += 1
        if self._failed_alone[version] >= MAX_FAILED_ALONE:
            log.critical("no memory for single frames, restarting the process: %s", error)
            os._exit(EXIT_DEVICE_LOST)

    def restore_due(self, now: float) -> None:
        """Try larger batches again when it is time, in a thread because it takes as long as a start."""
        if not any(self._restore_at) or (self._restoring is not None and self._restoring.is_alive()):
            return
        due = next((version for version, at in enumerate(self._restore_at) if 0 < at <= now), None)
        if due is not None:
            self._restoring = threading.Thread(target=self._restore, args=(due,), name="restore", daemon=True)
            self._restoring.start()

    def _restore(self, version: int) -> None:
        try:
            self._detectors[version].rehearse(self._spare_thread)
        except Exception as error:  # noqa: BLE001 - a model may raise anything; retried later
            exit_if_device_lost(error)
            log.warning("still no memory for larger batches: %s", error)
            self._restore_at[version] = time.monotonic() + RESTORE_AFTER_S
            return
        with self._lock:
            self._planner.limit(version, None)
        self._restore_at[version] = 0.0
        self._failed_alone[version] = 0
        log.info("there is memory for the larger batches again")
