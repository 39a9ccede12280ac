"""Tests that a mailbox holds the newest frame in mode `live`, and a short queue in mode `all`."""

import pytest

from streamer.streams.mailbox import Mailbox


def test_live_keeps_only_the_newest() -> None:
    box: Mailbox[int] = Mailbox(1, newest_wins=True)
    assert (box.put(1), box.put(2), box.put(3)) == (None, 1, 2)
    assert (box.take(), box.take()) == (3, None)


def test_all_keeps_order_and_refuses_what_does_not_fit() -> None:
    box: Mailbox[int] = Mailbox(2, newest_wins=False)
    assert (box.put(1), box.put(2), box.put(3)) == (None, None, 3)
    assert box.clear() == [1, 2]
    assert len(box) == 0


def test_a_mailbox_without_room_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Mailbox(0, newest_wins=True)
