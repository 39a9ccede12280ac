"""Tests starting, awaiting, signalling and stopping forks, also when the fork server dies or hangs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from inference.ipc import forked_process
from inference.ipc.forked_process import ForkedProcess
from tests.helpers.service import is_dead

ROOT = Path(__file__).resolve().parents[2]


@contextlib.asynccontextmanager
async def forked(action: str) -> AsyncIterator[ForkedProcess]:
    """Yield a process with a running fork server, whose forks perform ``action``."""
    process = ForkedProcess("tests.helpers.forked")
    await process.start_server([action], descriptors=(), environment=dict(os.environ))
    try:
        yield process
    finally:
        await process.stop(5.0, signal.SIGKILL)
        process.close()


async def started(process: ForkedProcess) -> psutil.Process:
    """Start a fork, wait until its process id is known, and return it."""
    server = process.pid
    process.start()
    async with asyncio.timeout(60):
        while process.pid in (server, None):
            await asyncio.sleep(0.01)
    assert process.pid is not None
    return psutil.Process(process.pid)


async def ended(process: ForkedProcess) -> int:
    async with asyncio.timeout(60):
        return await process.wait()


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    # A server that waits for a processor must not count as one that does not report.
    monkeypatch.setattr(forked_process, "REPORT_S", 60.0)


async def test_the_exit_code_of_each_fork_is_returned_and_the_server_stays() -> None:
    async with forked("7") as process:
        server = process.pid
        for _ in range(3):
            process.start()
            assert await ended(process) == 7
            assert process.has_server
        assert process.pid == server


async def test_a_killed_fork_has_a_successor_from_the_same_server() -> None:
    async with forked("sleep") as process:
        first = await started(process)
        server = first.ppid()
        first.kill()
        assert await ended(process) == -signal.SIGKILL
        second = await started(process)
        assert second.pid != first.pid
        assert second.ppid() == server
        process.send_signal(signal.SIGTERM)
        assert await ended(process) == -signal.SIGTERM
        assert psutil.pid_exists(server)


async def test_a_fork_ends_with_its_server_and_another_server_can_be_started() -> None:
    async with forked("sleep") as process:
        fork = await started(process)
        psutil.Process(fork.ppid()).kill()
        assert await ended(process) == -signal.SIGKILL
        assert is_dead(fork)
        assert not process.has_server
        await process.start_server(["5"], descriptors=(), environment=dict(os.environ))
        process.start()
        assert await ended(process) == 5


async def test_a_server_that_has_died_unnoticed_counts_as_the_death_of_the_fork() -> None:
    async with forked("sleep") as process:
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.start()
        assert await ended(process) == -signal.SIGKILL
        assert not process.has_server


async def test_a_stopped_server_that_does_not_report_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forked_process, "REPORT_S", 0.1)
    async with forked("sleep") as process:
        fork = await started(process)
        psutil.Process(fork.ppid()).suspend()
        fork.kill()
        assert await ended(process) == -signal.SIGKILL
        assert not process.has_server


async def test_a_signal_before_the_first_fork_goes_to_the_server() -> None:
    async with forked("sleep") as process:
        assert process.pid is not None
        psutil.Process(process.pid).suspend()  # the suspended server never forks
        process.start()
        process.send_signal(signal.SIGKILL)
        assert await ended(process) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("action", "patience_s", "code"),
    [("sleep", 60.0, -signal.SIGTERM), ("stubborn", 0.5, -signal.SIGKILL)],
)
async def test_a_stop_ends_fork_and_server(action: str, patience_s: float, code: int) -> None:
    async with forked(action) as process:
        fork = await started(process)
        server = psutil.Process(fork.ppid())
        await process.stop(patience_s)
        assert await ended(process) == code
        assert is_dead(server)
        assert is_dead(fork)
