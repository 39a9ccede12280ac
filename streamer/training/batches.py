"""Prepares batches of views in a thread of its own, while the network learns from the one before."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

import torch

from streamer.training.optimisation import Batch
from streamer.training.views import Views

#: Batches that wait. They bound the memory, and cover a picture that takes long to read.
_AHEAD = 3
_LOOK_S = 0.2


class Batches:
    """Makes the batches of consecutive steps. A context manager; leaving it ends the thread.

    The views of a step depend on nothing but its number, so a resumed training sees those that it has not
    seen.
    """

    def __init__(self, views: Views, size: int, first_step: int, may_join: Callable[[int], bool]) -> None:
        self._views, self._size, self._step, self._may_join = views, size, first_step, may_join
        self._ready: queue.Queue[Batch | BaseException] = queue.Queue(_AHEAD)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="views", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()

    def take(self) -> Batch:
        """Return the next batch. Raises what reading a picture raised."""
        batch = self._ready.get()
        if isinstance(batch, BaseException):
            raise batch
        return batch

    def _run(self) -> None:
        while not self._stopped.is_set():
            made: Batch | BaseException
            try:
                made = self._make()
            except Exception as error:  # noqa: BLE001 - `take` raises it
                made = error
            while not self._stopped.is_set():
                try:
                    self._ready.put(made, timeout=_LOOK_S)
                    break
                except queue.Full:
                    continue

    def _make(self) -> Batch:
        numbers = range(self._step * self._size, (self._step + 1) * self._size)
        joins = self._may_join(self._step)
        made = [self._views.make(number, may_join=joins) for number in numbers]
        self._step += 1
        images, class_ids, boxes = (torch.stack(parts) for parts in zip(*made, strict=True))
        return images, class_ids, boxes
