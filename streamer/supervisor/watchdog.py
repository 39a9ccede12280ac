"""Kills processes whose heartbeats in the shared status stop; the supervisor then restarts them.

A process may also be silent because the whole machine was suspended or overloaded, or because the process was
stopped together with the supervisor. Therefore silence counts only while the supervisor's own clock ticks
regularly, and a process that waits for a processor gets more time.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from inference.ipc.process_handle import InferenceHandle
from inference.ipc.shared_status import Presence, SharedStatus, State
from streamer.sampling.process_handle import SamplingProcessHandle

log = logging.getLogger("streamer.supervisor")

#: Longest time between two checks. It is not shorter, because each check wakes a core (bench/idle.py).
TICK_S = 1.0
_SHORTEST_TICK_S = 0.05
#: A check that comes this much later than planned shows that the supervisor itself was stopped or starved.
LATE_S = 0.5
#: A starved process may be silent for its limit times this factor.
STARVED_FACTOR = 4.0
#: A process is starved, not hung, if one of its threads waited for a processor for this share of the time.
STARVED_SHARE = 0.5
#: The inference loop counts as hung outside of a model run after this time without a heartbeat, which is 2.5
#: times its interval while idle.
INFERENCE_BEAT_LIMIT_S = 2.5
SAMPLING_BEAT_LIMIT_S = 5.0
SAMPLING_START_LIMIT_S = 60.0


class Heartbeat(NamedTuple):
    """The last heartbeat of a process, and how long the next one may take."""

    #: CLOCK_MONOTONIC seconds.
    last_at: float
    limit_s: float
    #: What is wrong once the limit has passed, for the log.
    fault: str


class Starvation:
    """Measures how long the threads of a process wait for a processor, using counters of the kernel."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._begun = time.monotonic()
        self._waited = _waited_s(pid)

    @property
    def starved(self) -> bool:
        """Whether a thread has mostly waited for a processor since construction, or waits for a disk."""
        if _waits_for_disk(self._pid):
            return True
        lasted_s = time.monotonic() - self._begun
        now = _waited_s(self._pid)
        longest_s = max((now[thread] - self._waited.get(thread, 0.0) for thread in now), default=0.0)
        return lasted_s > 0 and longest_s >= STARVED_SHARE * lasted_s


@dataclass(slots=True)
class WatchedProcess:
    """One process that the watchdog checks."""

    name: str
    #: Returns the last heartbeat; None while none is expected.
    heartbeat: Callable[[], Heartbeat | None]
    #: Returns the process id, None when no process runs.
    pid: Callable[[], int | None]
    kill: Callable[[], None]
    #: Set while the process has been silent for at least half its limit.
    starvation: Starvation | None = field(default=None)


class Watchdog:
    """Checks each process at the latest when its limit passes. Only the supervisor's event loop uses it."""

    def __init__(
        self,
        shared_status: SharedStatus,
        watched: Callable[[], Iterable[WatchedProcess]],
        on_tick: Callable[[float], None] = lambda _: None,
    ) -> None:
        """Create a watchdog that checks what ``watched`` returns in each round.

        Before each round it calls ``on_tick`` with the monotonic time.
        """
        self._on_tick = on_tick
        self._shared_status = shared_status
        self._watched = watched
        #: Silence before this time does not count.
        self._counts_from = time.monotonic()

    async def run(self) -> None:
        """Check until cancelled."""
        planned = time.monotonic()
        while True:
            now = time.monotonic()
            if now - planned > LATE_S:
                self._counts_from = now
            self._shared_status.post("supervisor_beat", now)
            self._on_tick(now)
            next_at = now + TICK_S
            for process in self._watched():
                next_at = min(next_at, self.check(process, now))
            planned = max(next_at, now + _SHORTEST_TICK_S)
            await asyncio.sleep(planned - now)

    def check(self, process: WatchedProcess, now: float) -> float:
        """Kill the process if it hangs; returns the latest time for the next check."""
        sign, pid = process.heartbeat(), process.pid()
        if sign is None or pid is None:
            process.starvation = None
            return now + TICK_S
        since = max(sign.last_at, self._counts_from)
        silent_s = now - since
        if silent_s < sign.limit_s / 2:
            process.starvation = None
            return since + sign.limit_s / 2
        if process.starvation is None:
            process.starvation = Starvation(pid)
        if silent_s < sign.limit_s:
            return since + sign.limit_s
        if silent_s < STARVED_FACTOR * sign.limit_s and process.starvation.starved:
            return now + sign.limit_s / 4
        log.error("killing %s: %s for %.1f s", process.name, sign.fault, silent_s)
        process.starvation = None
        process.kill()
        return now + TICK_S


def watch_inference(
    handle: InferenceHandle,
    start_timeout_s: float,
    ending: Callable[[], bool],
    name: str = "the inference process",
) -> WatchedProcess:
    """Return the process of an engine for the watchdog, which ignores it once ``ending`` returns True."""
    status = handle.status
    state, since = status.state, time.monotonic()

    def heartbeat() -> Heartbeat | None:
        nonlocal state, since
        if status.state is not state:
            state, since = status.state, time.monotonic()
        if ending() or state is State.DOWN:
            return None
        if handle.distrusted:
            return Heartbeat(0.0, 0.0, "a worker got a message that does not parse")
        if state is not State.READY:
            return Heartbeat(since, start_timeout_s, "it is not ready")
        # A heartbeat from before the last change of state may be that of an earlier process.
        beat = max(status.read("heartbeat"), since)
        busy_since, run_limit_s = status.read("busy_since"), status.read("run_limit_s")
        if busy_since > 0 and busy_since + run_limit_s < beat + INFERENCE_BEAT_LIMIT_S:
            return Heartbeat(busy_since, run_limit_s, "a model run hangs")
        return Heartbeat(beat, INFERENCE_BEAT_LIMIT_S, "its loop has stopped")

    def kill() -> None:
        status.post("state", State.DOWN)
        handle.signal(signal.SIGKILL)

    return WatchedProcess(name, heartbeat, lambda: handle.pid, kill)


def watch_sampling_process(handle: SamplingProcessHandle, ending: Callable[[], bool]) -> WatchedProcess:
    """Return the sampling process for the watchdog.

    The watchdog ignores it once ``ending`` returns True, because its last deliveries have their own limit.
    """
    shared_status = handle.shared_status

    def heartbeat() -> Heartbeat | None:
        if ending():
            return None
        beat = shared_status.read("sampling_beat")
        if not beat:
            return Heartbeat(handle.started_at, SAMPLING_START_LIMIT_S, "it does not start")
        if shared_status.read("sampling_presence") == Presence.STARTING:
            shared_status.post("sampling_presence", Presence.SERVING)
        return Heartbeat(beat, SAMPLING_BEAT_LIMIT_S, "its loop has stopped")

    def kill() -> None:
        shared_status.post("sampling_presence", Presence.HUNG)
        handle.kill()

    return WatchedProcess("the sampling process", heartbeat, lambda: handle.pid, kill)


def _waited_s(pid: int) -> dict[str, float]:
    """Return by thread how many seconds it has waited on a run queue; empty if the kernel reports nothing."""
    found = {}
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found[thread.name] = int((thread / "schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        pass
    return found


def _waits_for_disk(pid: int) -> bool:
    """Return whether the main thread waits for a disk or a file server, a wait that no signal interrupts."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "D"
    except (OSError, IndexError):
        return False
