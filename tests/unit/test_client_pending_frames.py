"""Frames that are offered but not yet sent: in mode live the newest waits, in mode all two wait in order."""

from __future__ import annotations

import numpy as np
import pytest

from streamer.client.results import Drop, FrameError, Ledger
from streamer.client.sender import PendingFrame, PendingFrames

IMAGE = np.zeros((2, 2, 3), np.uint8)


def pending(tag: str) -> PendingFrame:
    return PendingFrame(IMAGE, 0.5, tag)


def test_live_keeps_only_the_newest_that_waits() -> None:
    frames = PendingFrames("live", ledger := Ledger())
    assert frames.put(pending("a")) == []
    assert frames.next() is frames.current is not None
    assert frames.put(pending("b")) == []
    (replaced,) = frames.put(pending("c"))
    assert isinstance(replaced, Drop)
    assert (replaced.seq, replaced.tag, replaced.reason) == (0, "b", "replaced")
    assert (ledger.offered, ledger.waiting, ledger.skipped) == (3, 2, {"replaced": 1})
    frames.sent()
    ledger.sent = ledger.in_flight = 1
    after = frames.next()
    assert after is not None
    assert after.tag == "c"
    assert ledger.balance == 0


def test_mode_all_is_full_at_two_and_keeps_the_order() -> None:
    frames = PendingFrames("all", Ledger())
    frames.put(pending("a"))
    assert not frames.full
    frames.put(pending("b"))
    assert frames.full
    first = frames.next()
    assert first is not None
    assert (first.tag, frames.full, len(frames)) == ("a", False, 2)
    assert frames.next() is first


def test_whatever_was_taken_ends_with_an_outcome_and_the_ledger_balances() -> None:
    frames = PendingFrames("all", ledger := Ledger())
    frames.put(pending("a"))
    frames.put(pending("b"))
    frames.next()
    failed = frames.fail("unreadable", "why")
    assert isinstance(failed, FrameError)
    assert (failed.seq, failed.tag, failed.code) == (0, "a", "unreadable")
    frames.next()
    frames.put(pending("c"))
    dropped = (*frames.drop_current("closed"), *frames.drop_waiting("closed"))
    assert [outcome.tag for outcome in dropped] == ["b", "c"]
    frames.refuse("window")
    assert frames.drop_current("closed") == frames.drop_waiting("closed") == []
    assert ledger.skipped == {"unreadable": 1, "closed": 2, "window": 1}
    assert (ledger.offered, ledger.waiting, ledger.balance) == (4, 0, 0)


def test_failing_nothing_is_a_bug() -> None:
    with pytest.raises(RuntimeError, match="no frame"):
        PendingFrames("live", Ledger()).fail("x", "y")
