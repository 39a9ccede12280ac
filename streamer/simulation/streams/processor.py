"""Models what executes work: cores or a device, which running pieces of work share, and threads."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Callable

#: Work that remains for less than this time, in seconds, counts as done.
_ROUNDING_S = 1e-9

Done = Callable[[], None]


def core_speed(cores: int, efficiency: float = 1.0, used: float = 0.0) -> Callable[[int], float]:
    """Return the total speed of ``cores`` by the number of running pieces of work.

    One piece runs at speed 1. When all cores are busy, each has the speed ``efficiency``; in between, the
    speed changes linearly. Something else uses ``used`` cores, which are missing when all are busy.
    """

    def speed(running: int) -> float:
        busy = min(running, cores)
        loss = (1.0 - efficiency) * (busy - 1) / (cores - 1) if cores > 1 else 0.0
        return min(float(busy), cores - used) * (1.0 - loss)

    return speed


def device_speed(gain: float = 1.0) -> Callable[[int], float]:
    """Return the total speed of a device: 1 for one run, and ``gain`` for several that overlap."""
    return lambda running: gain if running > 1 else float(running)


class Processor:
    """Executes work at a total speed that all running pieces share equally (processor sharing).

    This is what a fair operating system does with runnable threads, if they are looked at for longer than a
    time slice. ``speed`` maps the number of running pieces to the total speed, in seconds of work per second.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, speed: Callable[[int], float], wake_up_s: float = 0.0
    ) -> None:
        """``wake_up_s`` is the time until a sleeping thread that executes work here gets it."""
        self.wake_up_s = wake_up_s
        self._loop = loop
        self._speed = speed
        #: Work that each piece would have received since the start, in seconds. A piece ends when this
        #: reaches its entry in the heap, so that a change of speed changes no entry.
        self._served_s = 0.0
        self._updated = loop.time()
        self._heap: list[tuple[float, int, Done]] = []
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        #: Work done so far, in seconds.
        self.done_s = 0.0

    def wake(self, call: Callable[[], None]) -> None:
        """Call ``call`` when a thread that sleeps now is awake."""
        if self.wake_up_s:
            self._loop.call_later(self.wake_up_s, call)
        else:
            call()

    def run(self, work_s: float, done: Done) -> None:
        """Start a piece of ``work_s`` seconds at speed 1, and call ``done`` at its end."""
        self._advance()
        heapq.heappush(self._heap, (self._served_s + work_s, next(self._numbers), done))
        self._schedule()

    def _advance(self) -> None:
        now, running = self._loop.time(), len(self._heap)
        if running:
            done_s = self._speed(running) * (now - self._updated)
            self._served_s += done_s / running
            self.done_s += done_s
        self._updated = now

    def _schedule(self) -> None:
        """Set the timer for the next end, unless it is set for an earlier time, at which it is set again."""
        if not self._heap:
            return
        running = len(self._heap)
        left_s = max(0.0, self._heap[0][0] - self._served_s) * running / self._speed(running)
        due = self._updated + left_s
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._end_due)

    def _end_due(self) -> None:
        self._timer = None
        self._advance()
        ended: list[Done] = []
        while self._heap and self._heap[0][0] - self._served_s <= _ROUNDING_S:
            ended.append(heapq.heappop(self._heap)[2])
        self._schedule()
        for done in ended:
            done()


class Threads:
    """Executes calls in order on a number of threads, each of which has one piece of work at a time.

    A thread without work sleeps, and has to be woken up.
    """

    def __init__(self, processor: Processor, count: int = 1) -> None:
        self._processor = processor
        self._idle = count
        self._waiting: deque[tuple[float, Done]] = deque()
        #: Work that was begun so far, in seconds.
        self.begun_s = 0.0

    def submit(self, work_s: float, done: Done, *, awake: bool = False) -> None:
        """Execute ``work_s`` seconds of work as soon as a thread is idle, then call ``done``.

        ``awake`` says that the thread does not sleep, because a timer of its own has woken it for this work.
        """
        if self._idle:
            self._idle -= 1
            if awake:
                self._begin(work_s, done)
            else:
                self._processor.wake(lambda: self._begin(work_s, done))
        else:
            self._waiting.append((work_s, done))

    def _begin(self, work_s: float, done: Done) -> None:
        def ended() -> None:
            # The thread takes its next work first: what `done` submits comes after what waits already.
            if self._waiting:
                self._begin(*self._waiting.popleft())
            else:
                self._idle += 1
            done()

        self.begun_s += work_s
        self._processor.run(work_s, ended)
