"""A frame is blocked when it was running at two deaths of the inference process, at the second one alone."""

from __future__ import annotations

from pathlib import Path

from streamer.decoding.refused_digests import RefusedDigests
from streamer.scheduling.crash_suspects import (
    FIRST_WATCH_S,
    FORGET_AFTER_S,
    MAX_REMEMBERED,
    REFUSE_S,
    WATCH_S,
    Suspects,
    Verdict,
)

CRASHING, HARMLESS = b"crashing", b"harmless"


def test_a_frame_is_blocked_by_its_second_death_when_it_was_alone() -> None:
    suspects = Suspects(RefusedDigests(None))
    assert suspects.check(CRASHING, 0, 0.0) is Verdict.FREE
    assert not suspects.died(CRASHING, 0, 0.0, alone=False)
    assert suspects.check(CRASHING, 0, 1.0) is Verdict.ALONE
    assert suspects.died(CRASHING, 0, 2.0, alone=True)
    assert suspects.check(CRASHING, 0, 1e9) is Verdict.BLOCKED
    assert suspects.check(memoryview(CRASHING), 0, 1e9) is Verdict.BLOCKED
    assert suspects.check(HARMLESS, 0, 3.0) is Verdict.FREE


def test_a_frame_that_survives_alone_is_free_again_however_often_it_was_beside_a_death() -> None:
    suspects = Suspects(RefusedDigests(None))
    for time in range(5):
        assert not suspects.died(HARMLESS, 0, time, alone=False)
    suspects.survived(HARMLESS)
    assert suspects.check(HARMLESS, 0, 9.0) is Verdict.FREE


def test_a_stream_is_watched_after_a_death_and_refused_after_two_alone() -> None:
    suspects = Suspects(RefusedDigests(None))
    suspects.died(b"1", 7, 0.0, alone=False)
    assert suspects.check(b"other bytes", 7, 1.0) is Verdict.ALONE
    assert suspects.check(b"other bytes", 8, 1.0) is Verdict.FREE
    assert suspects.check(b"other bytes", 7, FIRST_WATCH_S + 1) is Verdict.FREE
    suspects.died(b"1", 7, 0.0, alone=False)
    assert suspects.check(b"other bytes", 7, FIRST_WATCH_S + 1) is Verdict.ALONE
    assert suspects.check(b"other bytes", 7, WATCH_S + 1) is Verdict.FREE
    suspects.died(b"22", 7, 2.0, alone=True)
    assert suspects.check(b"other bytes", 7, 3.0) is Verdict.ALONE, "one death alone may have another cause"
    suspects.died(b"333", 7, 4.0, alone=True)
    assert suspects.check(b"other bytes", 7, 5.0) is Verdict.REFUSED
    assert suspects.check(b"other bytes", 7, 4.0 + REFUSE_S) is Verdict.ALONE
    assert suspects.check(b"other bytes", 7, 5.0 + FORGET_AFTER_S) is Verdict.FREE


def test_frames_without_bytes_are_judged_by_their_stream() -> None:
    suspects, image = Suspects(RefusedDigests(None)), object()
    assert not suspects.died(image, 7, 0.0, alone=False)
    assert suspects.check(image, 7, 1.0) is Verdict.ALONE
    for time in (1.0, 2.0):
        suspects.died(image, 7, time, alone=True)
    assert suspects.check(image, 7, 3.0) is Verdict.REFUSED


def test_what_is_remembered_is_bounded_and_the_oldest_goes_first() -> None:
    suspects = Suspects(RefusedDigests(None))
    for number in range(MAX_REMEMBERED + 1):
        suspects.died(b"frame %d" % number, number + 1, 0.0, alone=False)
    assert suspects.check(b"frame 0", 0, 1.0) is Verdict.FREE
    assert suspects.check(b"frame %d" % MAX_REMEMBERED, 0, 1.0) is Verdict.ALONE
    assert len(suspects._suspected) == len(suspects._sources) == MAX_REMEMBERED


def test_what_one_worker_has_blocked_is_blocked_in_all(tmp_path: Path) -> None:
    first, second = (Suspects(RefusedDigests(tmp_path / "harmful-frames")) for _ in range(2))
    first.died(CRASHING, 0, 0.0, alone=False)
    first.died(CRASHING, 0, 1.0, alone=True)
    assert second.check(CRASHING, 0, 2.0) is Verdict.BLOCKED
    assert second.check(HARMLESS, 0, 2.0) is Verdict.FREE


def test_a_client_is_refused_by_deaths_alone_whatever_bytes_or_streams_it_uses() -> None:
    suspects = Suspects(RefusedDigests(None))
    for number in range(5):
        suspects.died(b"beside others %d" % number, 0, 0.0, alone=False, client=9)
    assert suspects.check(b"new", 0, 1.0, client=9) is Verdict.FREE, "others may have caused it"
    suspects.died(b"a", 0, 1.0, alone=True, client=9)
    assert suspects.check(b"new", 0, 2.0, client=9) is Verdict.ALONE
    suspects.died(b"bb", 3, 2.0, alone=True, client=9)
    suspects.died(b"ccc", 4, 3.0, alone=True, client=9)
    assert suspects.check(b"new", 0, 4.0, client=9) is Verdict.REFUSED
    assert suspects.check(b"new", 5, 4.0, client=9) is Verdict.REFUSED
    assert suspects.check(b"new", 0, 4.0, client=10) is Verdict.FREE
    assert suspects.check(b"new", 0, 3.0 + REFUSE_S, client=9) is Verdict.ALONE
