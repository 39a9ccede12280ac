"""A client may hold a share of all sessions, and a smaller share of sessions that wait for video."""

from __future__ import annotations

import pytest

from streamer.webrtc.peers import ClientLimitReached, ClientShare


@pytest.mark.parametrize(
    ("sessions", "most", "pending"),
    [(1, 1, 1), (2, 2, 2), (3, 3, 3), (8, 6, 4), (64, 48, 8), (1000, 750, 125)],
)
def test_shares_leave_room_and_never_vanish(sessions: int, most: int, pending: int) -> None:
    share = ClientShare(sessions)
    assert (share.most, share.most_pending) == (most, pending)
    share.check(most - 1, pending - 1, None)
    with pytest.raises(ClientLimitReached, match="have sent no video"):
        share.check(most - 1, pending, None)
    with pytest.raises(ClientLimitReached, match="which is its share"):
        share.check(most, 0, None)


def test_a_keys_quota_takes_the_place_of_the_share() -> None:
    share = ClientShare(64)
    share.check(1, 0, 2)
    share.check(60, 0, 64)
    for held, quota in ((2, 2), (0, 0), (64, 1000)):
        with pytest.raises(ClientLimitReached):
            share.check(held, 0, quota)
