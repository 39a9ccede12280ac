"""Who keeps a place while descriptors are short."""

from __future__ import annotations

import pytest

from streamer.http.connection_limits import PROBE_PLACES, ConnectionPlaces, Guest, network_of


class Room:
    """An places and the connections that were cut from it."""

    def __init__(self, total: int = 4, per_network: int = 100) -> None:
        self.places = ConnectionPlaces(total, per_network)
        self.cut: list[str] = []

    def enter(self, name: str, now: float, address: str = "192.0.2.1") -> Guest | None:
        guest = self.places.enter(address, now)
        if guest is not None:
            guest.cut = lambda: self.cut.append(name)
        return guest


def test_the_one_that_is_silent_for_longest_makes_room() -> None:
    room = Room()
    for number in range(4):
        room.enter(str(number), float(number))
    assert room.enter("new", 10.0) is not None
    assert room.cut == ["0"]
    assert not room.places.over


def test_whoever_makes_a_request_is_not_cut() -> None:
    room = Room()
    busy = room.enter("busy", 0.0)
    assert busy is not None
    for number in range(3):
        room.enter(str(number), 1.0 + number)
    room.places.begin(busy)
    room.enter("new", 10.0)
    assert room.cut == ["0"]
    room.places.end(busy, 10.0)
    room.places.begin(busy)


def test_an_answer_that_was_just_given_is_not_cut_off() -> None:
    room = Room(total=1)
    guest = room.enter("kept", 0.0)
    assert guest is not None
    room.places.begin(guest)
    room.places.end(guest, 5.0)
    room.enter("new", 5.1)
    assert room.cut == []
    room.enter("newer", 5.3)
    assert room.cut == ["kept"]


def test_fresh_connections_are_not_cut_for_fresher_ones_and_probes_have_places() -> None:
    room = Room()
    entered = [room.enter(str(number), 1.0) for number in range(100)]
    assert room.cut == []
    assert sum(guest is not None for guest in entered) == 4 + PROBE_PLACES
    assert room.places.over


def test_one_network_cannot_take_all_places() -> None:
    room = Room(total=100, per_network=10)
    own = [room.enter(str(number), 0.0) for number in range(10)]
    for guest in own:
        assert guest is not None
        room.places.begin(guest)
    assert room.enter("eleventh", 1.0) is None
    assert room.enter("somebody else", 1.0, "192.0.2.2") is not None
    for guest in own:
        assert guest is not None
        room.places.leave(guest)
        room.places.leave(guest)  # twice is once
    assert room.enter("again", 1.0) is not None


def test_nothing_is_kept_of_those_who_left() -> None:
    room = Room(total=1000)
    for number in range(2000):
        guest = room.enter(str(number), float(number), f"198.51.100.{number % 250}")
        assert guest is not None
        room.places.begin(guest)
        room.places.leave(guest)
        room.places.end(guest, float(number))
    assert not room.places.full
    assert room.cut == []
    assert room.places._guests == {}
    assert not room.places._idle


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_an_ipv6_client_is_its_network(address: str, network: str) -> None:
    assert network_of(address) == network
