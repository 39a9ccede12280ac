"""Threads that turn decoded pictures of videos into model input, with a queue in front of them."""

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
    """Runs calls in ``threads`` threads, in order of submission; nobody waits for one of them.

    An executor of the standard library makes a future and takes several locks for each call, while threads of
    a busy worker wait for each other's interpreter as it is (docs/performance.md).
    """

    def __init__(self, threads: int) -> None:
        self._size = threads
        self._threads: list[threading.Thread] = []
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._closed = False

    def submit(self, call: Callable[..., object], *arguments: Any) -> None:
        """Have ``call(*arguments)`` run as soon as a thread is free. One thread only may submit and close.

        Raises RuntimeError after :meth:`close`, or when not one thread can be started.
        """
        if self._closed:
            raise RuntimeError("the converter threads have been stopped")
        if len(self._threads) < self._size:
            # One with each of the first calls: a worker without videos has none.
            thread = threading.Thread(target=self._run, name=f"convert-{len(self._threads)}", daemon=True)
            try:
                thread.start()
                self._threads.append(thread)
            except RuntimeError:
                if not self._threads:  # else those that run do it
                    raise
        self._queue.put((call, arguments))

    def close(self) -> None:
        """Forget what waits, and wait for what runs."""
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
            del work, call, arguments  # a frame must not live until the next one
