"""Converts decoded video frames into model input on several threads that share one queue."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

log = logging.getLogger("streamer.converter_threads")

_Work = tuple[Callable[..., object], tuple[Any, ...]]


class ConverterThreads:
    """Runs calls on up to ``threads`` threads, in order of submission. Callers get no future to wait for.

    An executor of the standard library creates a future and takes several locks per call, and the threads of
    a busy worker already compete for the GIL (docs/performance.md).
    """

    def __init__(self, threads: int) -> None:
        self._size = threads
        self._threads: list[threading.Thread] = []
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._closed = False

    def submit(self, call: Callable[..., object], *arguments: Any) -> None:
        """Run ``call(*arguments)`` as soon as a thread is free.

        Only one thread may call this and :meth:`close`. Raises RuntimeError after :meth:`close`, or if no
        thread at all can be started.
        """
        if self._closed:
            raise RuntimeError("the converter threads have been stopped")
        if len(self._threads) < self._size:
            # Start one thread with each of the first calls, so that a worker without videos has none.
            thread = threading.Thread(target=self._run, name=f"convert-{len(self._threads)}", daemon=True)
            try:
                thread.start()
                self._threads.append(thread)
            except RuntimeError:
                if not self._threads:  # otherwise the running threads do the work
                    raise
        self._queue.put((call, arguments))

    def close(self) -> None:
        """Discard the queued calls and wait for the running ones."""
        self._closed = True
        with contextlib.suppress(queue.Empty):
            while True:
                self._queue.get_nowait()
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            call, arguments = work
            try:
                call(*arguments)
            except Exception:
                log.exception("a converter thread failed by a fault of this project")
            del work, call, arguments  # release the frame now, not when the next call arrives
