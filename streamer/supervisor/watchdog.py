"""Watches the heartbeats of all processes and kills what hangs; whoever keeps a process starts the next one.

A process may be silent because the whole machine was: suspended, out of processors, stopped together with the
supervisor. Therefore silence counts only while the supervisor's own clock ticks regularly, and a process that
waits for a processor gets more time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from inference.ipc.shared_status import Board
from streamer.supervisor.starvation import Starvation

log = logging.getLogger("streamer.supervisor")

#: Longest time between two looks; each wakes a core (bench/idle.py).
TICK_S = 1.0
_SHORTEST_TICK_S = 0.05
#: A look that comes so much later than planned: this process itself was stopped or starved.
LATE_S = 0.5
#: A starved process gets so many times its limit.
STARVED_FACTOR = 4.0


@dataclass(slots=True)
class Watched:
    """One process under watch. Times are CLOCK_MONOTONIC seconds."""

    name: str
    #: Since when the process owes a sign of life, and how long it may; None while it owes none.
    owes: Callable[[], tuple[float, float, str] | None]
    #: Process id; None while there is none.
    pid: Callable[[], int | None]
    kill: Callable[[], None]
    #: Set while a process is late by half its limit.
    starvation: Starvation | None = field(default=None)


class Watch:
    """Looks at every process in time. Only the supervisor's loop uses it."""

    def __init__(
        self, board: Board, watched: list[Watched], on_tick: Callable[[float], None] = lambda _: None
    ) -> None:
        """``on_tick`` is told the time at every look."""
        self._on_tick = on_tick
        self._board = board
        self._watched = watched
        #: Silence before this time does not count.
        self._counts_from = time.monotonic()

    async def run(self) -> None:
        """Watch until cancelled."""
        planned = time.monotonic()
        while True:
            now = time.monotonic()
            if now - planned > LATE_S:
                self._counts_from = now
            self._board.post("supervisor_beat", now)
            self._on_tick(now)
            next_at = now + TICK_S
            for process in self._watched:
                next_at = min(next_at, self.look(process, now))
            planned = max(next_at, now + _SHORTEST_TICK_S)
            await asyncio.sleep(planned - now)

    def look(self, process: Watched, now: float) -> float:
        """Kill the process if it hangs; returns when to look again at the latest."""
        owed, pid = process.owes(), process.pid()
        if owed is None or pid is None:
            process.starvation = None
            return now + TICK_S
        since, limit_s, what = owed
        since = max(since, self._counts_from)
        silent_s = now - since
        if silent_s < limit_s / 2:
            process.starvation = None
            return since + limit_s / 2
        if process.starvation is None:
            process.starvation = Starvation(pid)
        if silent_s < limit_s:
            return since + limit_s
        if silent_s < STARVED_FACTOR * limit_s and process.starvation.starved:
            return now + limit_s / 4
        log.error("killing %s: %s for %.1f s", process.name, what, silent_s)
        process.starvation = None
        process.kill()
        return now + TICK_S
