"""Threads that decode frames; a queue in front of them, nothing else."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

log = logging.getLogger("streamer.decoder_pool")

_Work = tuple[Callable[..., object], tuple[Any, ...]]


class DecoderPool:
    """Runs calls in ``threads`` threads, in order of submission; nobody waits for one of them.

    An executor of the standard library makes a future and takes several locks for each call, while threads of
    a busy worker wait for each other's interpreter as it is (docs/performance.md).
    """

    def __init__(self, threads: int) -> None:
        self._size = threads
        self._threads: list[threading.Thread] = []
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()

    def submit(self, call: Callable[..., object], *arguments: Any) -> None:
        """Have ``call(*arguments)`` run as soon as a thread is free. One thread only may submit and close."""
        if len(self._threads) < self._size:
            # One with each of the first calls: a worker that never decodes has none.
            thread = threading.Thread(target=self._run, name=f"decode-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._queue.put((call, arguments))

    def close(self) -> None:
        """Forget what waits, and wait for what runs."""
        while not self._queue.empty():
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
                log.exception("a decoder thread met a fault of ours")
            del work, call, arguments  # a frame must not live until the next one
