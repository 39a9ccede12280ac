"""Tests the times of frames: pacing, thinning, late frames, backlogs, and clocks that are set anew."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

import numpy as np
import pytest

from streamer.client.capture import (
    BACKLOG_S,
    RESYNC_AFTER_S,
    Captured,
    MediaTimes,
    paced,
    thinned,
    without_backlog,
)

PIXELS = np.zeros((4, 4, 3), np.uint8)


class FakeClock:
    """A clock that stands still until a test or a `FakeStop` moves it."""

    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


class FakeStop(threading.Event):
    """An event whose waits move the fake clock."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        self._clock.now += timeout or 0.0
        return self.is_set()


def captures(times_s: list[float], clock: FakeClock | None = None, work_s: float = 0.0) -> Iterator[Captured]:
    for number, time_s in enumerate(times_s):
        if clock is not None:
            clock.now += work_s
        yield Captured(number, time_s, 0.1, PIXELS)


def test_pacing_waits_for_each_frames_time() -> None:
    clock = FakeClock()
    seen = [
        (frame.time_s, round(clock.now - 50, 6), frame.skip)
        for frame in paced(captures([0.0, 0.1, 0.5]), FakeStop(clock), clock)
    ]
    assert seen == [(0.0, 0.0, ""), (0.1, 0.1, ""), (0.5, 0.5, "")]


def test_frames_that_come_late_are_marked_and_the_pace_is_found_again() -> None:
    clock = FakeClock()
    seen = []
    for frame in paced(captures([i / 10 for i in range(8)]), FakeStop(clock), clock):
        seen.append(frame.skip)
        if frame.number == 2:
            clock.now += 0.35
    assert seen == ["", "", "", "late", "late", "", "", ""]


def test_a_source_that_is_always_too_slow_is_slowed_instead_of_silenced() -> None:
    clock = FakeClock()
    frames = captures([i / 10 for i in range(60)], clock, work_s=0.15)
    skipped = [frame.skip for frame in paced(frames, FakeStop(clock), clock)]
    assert skipped.count("") > 60 * 0.3
    assert RESYNC_AFTER_S < 1


def test_thinning_keeps_the_rate_on_average() -> None:
    frames = list(thinned(captures([i / 30 for i in range(300)]), 7))
    sent = [frame for frame in frames if not frame.skip]
    assert 69 <= len(sent) <= 71
    assert {frame.skip for frame in frames} == {"", "fps"}


def late_frames(times: Iterable[tuple[float, float | None]]) -> list[int]:
    """Return the numbers of the frames that are skipped, from the arrival and the own time of each."""
    clock = FakeClock()

    def arriving() -> Iterator[Captured]:
        for number, (arrived_s, media_s) in enumerate(times):
            clock.now = arrived_s
            yield Captured(number, arrived_s, 0.04, PIXELS, media_s=media_s)

    return [frame.number for frame in without_backlog(arriving(), clock) if frame.skip == "late"]


def test_the_old_frames_of_a_backlog_are_skipped() -> None:
    # Nothing arrives from the second 2 to 8, and then a frame every 5 ms.
    times = [(max(n / 25, 8 + (n - 51) / 200 if n > 50 else 0.0), n / 25) for n in range(400)]
    skipped = late_frames(times)
    assert skipped == list(range(52, skipped[-1] + 1))
    arrived_s, media_s = times[skipped[-1] + 1]
    assert 0.9 < arrived_s - media_s < BACKLOG_S + 0.1
    assert late_frames((arrived_s, None) for arrived_s, _ in times) == []


def test_frames_that_are_no_backlog_are_sent() -> None:
    frames = range(50_000)
    # The camera's clock is slow, and frames arrive in pairs.
    assert late_frames((1.001 * (n - n % 2 * 0.9) / 5, n / 5) for n in frames) == []
    # The source stays 5 s late.
    assert late_frames((n / 25 + (5 if n > 50 else 0), n / 25) for n in range(500)) == []
    # The stream is opened anew, and begins with frames that have waited.
    assert late_frames((n / 25 if n < 50 else 60 + n / 200, n % 50 / 25) for n in range(100)) == []


@pytest.mark.parametrize("jump_s", [-2.0, -9000.0, 11.0, 9000.0])
def test_the_times_of_a_live_stream_continue_when_its_clock_was_set_anew(jump_s: float) -> None:
    times = MediaTimes(0.1, live=True)
    assert [times.add(known_s) for known_s in (5.0, 5.1, 5.3)] == pytest.approx([0.0, 0.1, 0.3])
    known = [5.4 + jump_s, 5.5 + jump_s, 5.7 + jump_s]
    assert [times.add(known_s) for known_s in known] == pytest.approx([0.4, 0.5, 0.7])


def test_the_times_of_a_file_are_those_that_it_states_and_always_increase() -> None:
    times = MediaTimes(0.1, live=False)
    given = [None, 3.0, 2.9, 3.0, 50.0]
    assert [times.add(known_s) for known_s in given] == pytest.approx([0.0, 0.001, 0.002, 0.003, 47.0])


def test_a_container_without_times_has_frames_at_its_usual_rate() -> None:
    times = MediaTimes(0.04, live=True)
    assert [times.add(None) for _ in range(3)] == pytest.approx([0.0, 0.04, 0.08])
