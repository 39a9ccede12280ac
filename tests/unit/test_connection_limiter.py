"""A worker at its limit of connections closes idle ones to admit new ones."""

from __future__ import annotations

import pytest

from streamer.http.connection_limits import PROBE_RESERVE, ConnectionLimiter, TrackedConnection, network_of


class Server:
    """Holds a limiter and the names of the connections that the limiter closed."""

    def __init__(self, total: int = 4, per_network: int = 100) -> None:
        self.limiter = ConnectionLimiter(total, per_network)
        self.closed: list[str] = []

    def enter(self, name: str, now: float, address: str = "192.0.2.1") -> TrackedConnection | None:
        tracked = self.limiter.admit(address, now)
        if tracked is not None:
            tracked.close = lambda: self.closed.append(name)
        return tracked


def test_the_connection_that_has_been_idle_for_longest_is_closed() -> None:
    server = Server()
    for number in range(4):
        server.enter(str(number), float(number))
    assert server.enter("new", 10.0) is not None
    assert server.closed == ["0"]
    assert not server.limiter.over


def test_a_connection_with_a_request_is_not_closed() -> None:
    server = Server()
    busy = server.enter("busy", 0.0)
    assert busy is not None
    for number in range(3):
        server.enter(str(number), 1.0 + number)
    server.limiter.request_started(busy)
    server.enter("new", 10.0)
    assert server.closed == ["0"]
    server.limiter.request_ended(busy, 10.0)
    server.limiter.request_started(busy)


def test_a_connection_is_not_closed_right_after_its_answer() -> None:
    server = Server(total=1)
    tracked = server.enter("kept", 0.0)
    assert tracked is not None
    server.limiter.request_started(tracked)
    server.limiter.request_ended(tracked, 5.0)
    server.enter("new", 5.1)
    assert server.closed == []
    server.enter("newer", 5.3)
    assert server.closed == ["kept"]


def test_new_connections_are_not_closed_for_newer_ones_and_probes_are_admitted() -> None:
    server = Server()
    entered = [server.enter(str(number), 1.0) for number in range(100)]
    assert server.closed == []
    assert sum(tracked is not None for tracked in entered) == 4 + PROBE_RESERVE
    assert server.limiter.over


def test_one_network_cannot_hold_all_connections() -> None:
    server = Server(total=100, per_network=10)
    own = [server.enter(str(number), 0.0) for number in range(10)]
    for tracked in own:
        assert tracked is not None
        server.limiter.request_started(tracked)
    assert server.enter("eleventh", 1.0) is None
    assert server.enter("somebody else", 1.0, "192.0.2.2") is not None
    for tracked in own:
        assert tracked is not None
        server.limiter.remove(tracked)
        server.limiter.remove(tracked)  # a second removal has no effect
    assert server.enter("again", 1.0) is not None


def test_ended_connections_leave_nothing_behind() -> None:
    server = Server(total=1000)
    for number in range(2000):
        tracked = server.enter(str(number), float(number), f"198.51.100.{number % 250}")
        assert tracked is not None
        server.limiter.request_started(tracked)
        server.limiter.remove(tracked)
        server.limiter.request_ended(tracked, float(number))
    assert not server.limiter.full
    assert server.closed == []
    assert server.limiter._by_network == {}
    assert not server.limiter._idle


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
