"""Replica names lead only to configured addresses, and are looked up no more often than needed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from streamer.config.replica_addresses import (
    Address,
    Replicas,
    parse_address,
    parse_own,
    parse_peers,
    resolve,
)
from streamer.config.settings import SettingsError, load_settings


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.1.2.3", Address("10.1.2.3", 8000)),
        (" 10.1.2.3:81 ", Address("10.1.2.3", 81)),
        ("fd00:0::5", Address("fd00::5", 8000)),
        ("[fd00::5]:81", Address("fd00::5", 81)),
        ("[fd00::5]", None),
        ("app-peers", Address("app-peers", 8000)),
        ("app-peers.ns.svc.cluster.local.:81", Address("app-peers.ns.svc.cluster.local.", 81)),
        ("app:0", None),
        ("app:x", None),
        ("http://app:81", None),
        ("a b", None),
        ("", None),
        ("app@evil:81", None),
    ],
)
def test_addresses_are_read_or_refused(text: str, expected: Address | None) -> None:
    if expected is None:
        with pytest.raises(ValueError, match="allowed"):
            parse_address(text, 8000)
    else:
        assert parse_address(text, 8000) == expected


def test_an_address_has_one_name_however_it_is_written() -> None:
    assert parse_address("[FD00:0:0::5]:8000", 1).name == parse_address("fd00::5", 8000).name
    assert len({Address(f"10.0.0.{n}", port).name for n in range(50) for port in (80, 81)}) == 100
    assert Address("fd00::5", 80).url == "http://[fd00::5]:80"
    assert Address("10.0.0.1", 80).url == "http://10.0.0.1:80"


def test_settings_name_what_is_wrong_with_them() -> None:
    for given, word in (
        ({"replica_address": "app-0:8000"}, "IP"),
        ({"replica_address": "10.0.0.1:99999"}, "65535"),
        ({"replica_peers": "10.0.0.1,no way", "replica_address": "10.0.0.1"}, "no way"),
        ({"replica_peers": "10.0.0.1"}, "REPLICA_ADDRESS"),
    ):
        with pytest.raises(SettingsError, match=word):
            load_settings(**given)
    settings = load_settings(replica_address="10.0.0.1", replica_peers="peers, 10.0.0.2:81", port=8123)
    assert settings.own_address == Address("10.0.0.1", 8123)
    assert settings.peer_addresses == (Address("peers", 8123), Address("10.0.0.2", 81))
    assert parse_own("", 80) is None
    assert parse_peers(" , ", 80) == ()


class Names:
    """Answers as a name server with what the test puts in ``answers``; None means that the server is away."""

    def __init__(self) -> None:
        self.answers: dict[str, list[str] | None] = {}
        self.asked = 0

    async def __call__(self, address: Address) -> list[Address]:
        self.asked += 1
        found = self.answers.get(address.host)
        if found is None:
            raise OSError("name server is away")
        return [Address(host, address.port) for host in found]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("streamer.config.replica_addresses.time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


async def test_replicas_that_come_and_go_are_followed(clock: list[float]) -> None:
    names = Names()
    own, other, third = (Address(f"10.0.0.{n}", 80) for n in (1, 2, 3))
    names.answers["peers"] = ["10.0.0.1", "10.0.0.2"]
    known = Replicas(own, (Address("peers", 80),), names)
    assert known.name == own.name
    assert await known.find(other.name) == other
    assert await known.find(third.name) is None
    names.answers["peers"] = ["10.0.0.1", "10.0.0.3"]
    clock[0] += 1.5
    assert await known.find(third.name) == third, "a new one is found without waiting"
    clock[0] += 20
    assert await known.find(other.name) is None, "one that is gone is forgotten"


async def test_names_that_nobody_has_are_not_looked_up_each_time(clock: list[float]) -> None:
    names = Names()
    names.answers["peers"] = ["10.0.0.1"]
    known = Replicas(Address("10.0.0.1", 80), (Address("peers", 80),), names)
    for number in range(100):
        assert await known.find(f"{number:08x}") is None
    assert names.asked == 1
    clock[0] += 1.1
    assert await known.find("ffffffff") is None
    assert names.asked == 2


async def test_a_name_server_that_is_away_makes_nobody_forgotten(clock: list[float]) -> None:
    names = Names()
    names.answers["peers"] = ["10.0.0.1", "10.0.0.2"]
    known = Replicas(Address("10.0.0.1", 80), (Address("peers", 80),), names)
    other = Address("10.0.0.2", 80)
    assert await known.find(other.name) == other
    names.answers["peers"] = None
    clock[0] += 60
    assert await known.find(other.name) == other


async def test_a_replica_without_settings_has_no_name_and_asks_nobody() -> None:
    names = Names()
    alone = Replicas(look_up=names)
    assert alone.name == ""
    assert await alone.find(Address("127.0.0.1", 80).name) is None
    assert names.asked == 0


async def test_addresses_and_names_of_this_machine_are_resolved() -> None:
    assert await resolve(Address("127.0.0.1", 81)) == [Address("127.0.0.1", 81)]
    assert Address("127.0.0.1", 81) in await resolve(Address("localhost", 81))


async def test_addresses_of_replicas_are_recognised_in_every_form() -> None:
    found = [Address("10.0.0.1", 80), Address("10.0.0.2", 80)]
    looked_up: list[Address] = []

    async def look_up(peer: Address) -> list[Address]:
        looked_up.append(peer)
        return list(found)

    replicas = Replicas(found[0], (Address("app-peers", 80),), look_up)
    assert await replicas.has("10.0.0.2")
    assert await replicas.has("::ffff:10.0.0.2")
    assert not await replicas.has("10.0.0.3")
    assert not await replicas.has("")
    assert not await replicas.has("app-peers")
    assert len(looked_up) == 1, "unknown addresses do not cause a flood of look-ups"
    assert await replicas.others() == {found[1].name: found[1]}
    assert not await Replicas().has("10.0.0.2")
    assert await Replicas().others() == {}
