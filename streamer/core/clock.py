"""Provides the clock of the scheduler and of live streams, which a simulation replaces with its own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

#: Returns monotonic seconds. Callers look it up in this module on each call, because :func:`replaced` changes
#: it; the service itself never does.
monotonic: Callable[[], float] = time.monotonic


@contextlib.contextmanager
def replaced(clock: Callable[[], float]) -> Iterator[None]:
    """Use ``clock`` in place of the machine's monotonic clock in this process, until the block ends."""
    global monotonic
    before, monotonic = monotonic, clock
    try:
        yield
    finally:
        monotonic = before
