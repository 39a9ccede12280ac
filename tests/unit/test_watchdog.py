"""The watchdog kills processes that hang, but none that was suspended with it or gets no processor time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from inference.ipc.shared_status import SharedStatus
from streamer.supervisor.restart_policy import CrashLoop, RestartPolicy
from streamer.supervisor.watchdog import Heartbeat, Starvation, Watchdog, WatchedProcess
from tests.helpers.waiting import wait_for


class Process:
    """A watched process whose last heartbeat the test sets."""

    def __init__(self, pid: int) -> None:
        self.beat = time.monotonic()
        self.killed = 0
        self.watched = WatchedProcess(
            "it", lambda: Heartbeat(self.beat, 5.0, "silent"), lambda: pid, self._kill
        )

    def _kill(self) -> None:
        self.killed += 1


@pytest.fixture
def shared_status() -> Iterator[SharedStatus]:
    made = SharedStatus()
    yield made
    made.close()


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    # While the process starts it may wait for a processor, and the watchdog would consider it starved.
    process.stdout.readline()
    wait_for(lambda: _state(process.pid) == "S")
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_silent_process_is_killed_at_its_limit_and_looked_at_in_time(
    shared_status: SharedStatus, sleeper: subprocess.Popen[bytes]
) -> None:
    process = Process(sleeper.pid)
    watchdog = Watchdog(shared_status, lambda: [process.watched])
    begun = process.beat = time.monotonic()  # silence from before the watchdog began would not count
    assert watchdog.check(process.watched, begun + 1.0) == pytest.approx(begun + 2.5, abs=0.1)
    assert watchdog.check(process.watched, begun + 3.0) == pytest.approx(begun + 5.0, abs=0.1)
    assert process.killed == 0
    watchdog.check(process.watched, begun + 5.1)
    assert process.killed == 1


def test_a_beat_in_time_keeps_it_alive(shared_status: SharedStatus, sleeper: subprocess.Popen[bytes]) -> None:
    process = Process(sleeper.pid)
    watchdog = Watchdog(shared_status, lambda: [process.watched])
    for second in range(1, 60):
        process.beat += 1.0
        watchdog.check(process.watched, process.beat + 0.5 + second * 0.0)
    assert process.killed == 0


async def test_silence_while_the_watchdog_itself_stood_still_does_not_count(
    shared_status: SharedStatus, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("streamer.supervisor.watchdog.time.monotonic", lambda: now[0])
    process = Process(sleeper.pid)
    watchdog = Watchdog(shared_status, lambda: [process.watched])
    jumps = iter([1.0, 1.0, 500.0, 1.0, 1.0, 1.0, 1.0])

    async def sleep(_: float) -> None:
        try:
            now[0] += next(jumps)
        except StopIteration:
            raise StopAsyncIteration from None

    monkeypatch.setattr("streamer.supervisor.watchdog.asyncio.sleep", sleep)
    with pytest.raises((StopAsyncIteration, RuntimeError)):
        await watchdog.run()
    assert process.killed == 0
    assert watchdog.check(process.watched, now[0] + 20.0)
    assert process.killed == 1


def test_a_process_without_a_processor_is_starved_and_a_stopped_one_is_not() -> None:
    hog = "while True: pass"
    cpu = min(os.sched_getaffinity(0))
    processes = [subprocess.Popen([sys.executable, "-c", hog]) for _ in range(3)]
    try:
        for process in processes:
            os.sched_setaffinity(process.pid, {cpu})
        watched = Starvation(processes[0].pid)
        wait_for(lambda: watched.starved)
        processes[1].send_signal(signal.SIGSTOP)
        # The process stops when it gets the processor; until then it waits for it.
        wait_for(lambda: _state(processes[1].pid) == "T")
        stopped = Starvation(processes[1].pid)
        time.sleep(0.5)
        assert not stopped.starved
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_five_deaths_in_a_minute_are_a_crash_loop_until_ten_seconds_are_calm() -> None:
    loop = CrashLoop()
    for second in range(5):
        assert not loop.is_active(float(second))
        loop.died(float(second))
    assert loop.is_active(5.0)
    assert loop.is_active(13.9)
    assert not loop.is_active(14.0)
    loop.died(50.0)
    assert loop.is_active(51.0)
    loop.died(120.0)
    assert not loop.is_active(121.0)


def test_delays_double_up_to_half_a_minute_and_start_anew_after_a_healthy_minute() -> None:
    policy = RestartPolicy()
    found = [policy.next_delay_s(1.0) for _ in range(20)]
    assert found[0] == 0.0
    for number, delay_s in enumerate(found[1:]):
        longest_s = min(30.0, 0.1 * 2.0**number)
        assert longest_s / 2 <= delay_s <= longest_s
    with pytest.raises(OverflowError):
        policy.next_delay_s(1.0)
    assert policy.next_delay_s(61.0) == 0.0
    endless = RestartPolicy(max_deaths=sys.maxsize)
    assert max(endless.next_delay_s(1.0) for _ in range(2000)) <= 30.0
