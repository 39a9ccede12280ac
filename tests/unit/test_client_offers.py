"""Pictures between the offer and the wire: the newest waits (live), or two in order (all)."""

from __future__ import annotations

import numpy as np
import pytest

from streamer.client.pending_frames import Offer, Offers
from streamer.client.results import Drop, FrameError, Ledger

PICTURE = np.zeros((2, 2, 3), np.uint8)


def offer(tag: str) -> Offer:
    return Offer(PICTURE, 0.5, tag)


def test_live_keeps_only_the_newest_that_waits() -> None:
    offers = Offers("live", ledger := Ledger())
    assert offers.put(offer("a")) == []
    assert offers.next() is offers.current is not None
    assert offers.put(offer("b")) == []
    (replaced,) = offers.put(offer("c"))
    assert isinstance(replaced, Drop)
    assert (replaced.seq, replaced.tag, replaced.reason) == (0, "b", "replaced")
    assert (ledger.offered, ledger.waiting, ledger.skipped) == (3, 2, {"replaced": 1})
    offers.sent()
    ledger.sent = ledger.in_flight = 1
    after = offers.next()
    assert after is not None
    assert after.tag == "c"
    assert ledger.balance == 0


def test_mode_all_is_full_at_two_and_keeps_the_order() -> None:
    offers = Offers("all", Ledger())
    offers.put(offer("a"))
    assert not offers.full
    offers.put(offer("b"))
    assert offers.full
    first = offers.next()
    assert first is not None
    assert (first.tag, offers.full, len(offers)) == ("a", False, 2)
    assert offers.next() is first


def test_whatever_was_taken_ends_with_an_outcome_and_the_ledger_balances() -> None:
    offers = Offers("all", ledger := Ledger())
    offers.put(offer("a"))
    offers.put(offer("b"))
    offers.next()
    failed = offers.fail("unreadable", "why")
    assert isinstance(failed, FrameError)
    assert (failed.seq, failed.tag, failed.code) == (0, "a", "unreadable")
    offers.next()
    offers.put(offer("c"))
    assert [o.tag for o in (*offers.drop_current("closed"), *offers.drop_waiting("closed"))] == ["b", "c"]
    offers.refuse("window")
    assert offers.drop_current("closed") == offers.drop_waiting("closed") == []
    assert ledger.skipped == {"unreadable": 1, "closed": 2, "window": 1}
    assert (ledger.offered, ledger.waiting, ledger.balance) == (4, 0, 0)


def test_failing_nothing_is_a_bug() -> None:
    with pytest.raises(RuntimeError, match="no picture"):
        Offers("live", Ledger()).fail("x", "y")
