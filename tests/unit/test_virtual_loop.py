"""Virtual time jumps from timer to timer, and the scheduler and the streams live in it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from streamer.core import clock
from streamer.simulation.streams.processor import Processor, Threads, core_speed, device_speed
from streamer.simulation.streams.virtual_loop import BEGIN_S, Deadlock, run_virtually

ROOT = Path(__file__).resolve().parents[2]
#: Files that a simulation runs; whoever needs the time there asks `streamer.core.clock`.
IN_VIRTUAL_TIME = [
    *sorted((ROOT / "streamer" / "scheduling").glob("*.py")),
    *(
        ROOT / "streamer" / "streams" / f"{name}.py"
        for name in ("flow_control", "session_control", "stream_handle")
    ),
    ROOT / "streamer" / "websocket" / "frame_receiver.py",
]


async def test_time_does_not_pass_outside_of_the_loop() -> None:
    assert clock.monotonic is time.monotonic


def test_sleeping_takes_virtual_time_only() -> None:
    async def sleep() -> list[float]:
        seen = [clock.monotonic()]
        for seconds in (3600.0, 0.25, 0.0):
            await asyncio.sleep(seconds)
            seen.append(clock.monotonic())
        async with asyncio.timeout(7.0):
            await asyncio.sleep(6.9)
        return [*seen, clock.monotonic()]

    begun = time.monotonic()
    seen = run_virtually(sleep())
    assert seen == pytest.approx([BEGIN_S + after for after in (0, 3600, 3600.25, 3600.25, 3607.15)])
    assert time.monotonic() - begun < 3600
    assert clock.monotonic is time.monotonic


def test_an_error_in_a_callback_ends_the_run() -> None:
    async def run() -> None:
        asyncio.get_running_loop().call_later(5.0, lambda: [][0])
        await asyncio.sleep(10.0)

    with pytest.raises(IndexError):
        run_virtually(run())
    assert clock.monotonic is time.monotonic


def test_waiting_for_what_nobody_will_do_is_an_error() -> None:
    async def run() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Deadlock):
        run_virtually(run())


@pytest.mark.parametrize("path", IN_VIRTUAL_TIME, ids=lambda path: path.stem)
def test_no_file_that_runs_in_virtual_time_reads_the_clock_of_the_machine(path: Path) -> None:
    text = path.read_text()
    assert "time.monotonic" not in text
    assert "loop.time()" not in text


def ends(speed_cores: int, works: list[float], *, efficiency: float = 1.0) -> list[float]:
    """Return when pieces of work that start together end, in seconds after the start."""

    async def run() -> list[float]:
        loop = asyncio.get_running_loop()
        processor = Processor(loop, core_speed(speed_cores, efficiency))
        ended: list[float] = []
        for work_s in works:
            processor.run(work_s, lambda: ended.append(loop.time() - BEGIN_S))
        await asyncio.sleep(100.0)
        assert processor.done_s == pytest.approx(sum(works))
        return ended

    return run_virtually(run())


def test_pieces_of_work_share_the_cores() -> None:
    assert ends(2, [1.0, 1.0]) == pytest.approx([1.0, 1.0])
    # Three pieces on two cores: each gets 2/3 of a core, until two end at 1.5 s.
    assert ends(2, [1.0, 1.0, 2.0]) == pytest.approx([1.5, 1.5, 2.5])
    assert ends(2, [1.0, 3.0], efficiency=0.5) == pytest.approx([2.0, 4.0])
    assert ends(1, [0.0, 1.0]) == pytest.approx([0.0, 1.0])


def test_an_accelerator_gains_from_a_second_run_only() -> None:
    speed = device_speed(1.5)
    assert [speed(running) for running in (0, 1, 2, 3)] == [0.0, 1.0, 1.5, 1.5]


def test_threads_do_their_work_in_order() -> None:
    async def run() -> list[tuple[str, float]]:
        loop = asyncio.get_running_loop()
        threads = Threads(Processor(loop, core_speed(4)), 2)
        ended: list[tuple[str, float]] = []
        for name, work_s in (("a", 1.0), ("b", 3.0), ("c", 1.0), ("d", 0.5)):
            threads.submit(work_s, lambda name=name: ended.append((name, round(loop.time() - BEGIN_S, 6))))  # type: ignore[misc]
        await asyncio.sleep(10.0)
        return ended

    assert run_virtually(run()) == [("a", 1.0), ("c", 2.0), ("d", 2.5), ("b", 3.0)]
