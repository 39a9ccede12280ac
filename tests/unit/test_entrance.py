"""A client without room here is admitted, refused, or passed on to the replica where its stream belongs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from streamer.access.identity import ALL_SCOPES, Identity
from streamer.http.authentication import Authenticator
from streamer.protocol.client_messages import Hello, parse_message
from streamer.protocol.close_codes import CloseCode, CloseConnection
from streamer.scheduling.clients import Client
from streamer.scheduling.dispatcher import Dispatcher
from streamer.scheduling.errors import OverLimit, Saturated
from streamer.websocket.entrance import Entrance, Newcomer
from streamer.websocket.relay import Relay, Relayed

KNOWN = Identity("camera", ALL_SCOPES)
STRANGER = Identity("addr:10.0.0.9", frozenset(), anonymous=True)
SESSION = "0" * 8 + "-0-" + "a" * 24


class Replica:
    """A dispatcher, an authenticator and a rebalancer that do what a test says."""

    def __init__(self) -> None:
        self.refusal: Exception | None = None
        self.opened = 0
        #: Name of the replica at which sessions belong, of the one that has room, and those that accept.
        self.home: str | None = None
        self.roomy: str | None = None
        self.accepts = True
        self.can_help = True
        self.passed_to: list[tuple[str, Identity | None]] = []
        self.clients = SimpleNamespace(of=lambda identity, _now: Client(identity.name))
        self.admission = self

    # The dispatcher and its admission.

    def admit(self, _version: str, _client: Client) -> None:
        if self.refusal is not None:
            raise self.refusal

    def open_stream(self, _client: Client) -> None:
        self.opened += 1

    def close_stream(self, _client: Client) -> None:
        self.opened -= 1

    # The authenticator.

    async def identify(self, token: str, _address: str, *, tickets: bool) -> Identity | None:
        assert tickets
        return KNOWN if token in ("dummy-key", "tkt_dummy") else None

    # The rebalancer and the router.

    def destination(self, session: str) -> str | None:
        assert session == SESSION
        return self.home

    def place(self) -> str | None:
        return self.roomy

    def refused(self, name: str) -> None:
        assert not self.accepts, name

    async def open_stream_at(self, name: str, _request: object, redeemed: Identity | None) -> object | None:
        self.passed_to.append((name, redeemed))
        return object() if self.accepts else None


def enter(replica: Replica, *, hop: bool = False, identity: Identity = KNOWN) -> tuple[Entrance, Newcomer]:
    """Return the entrance and a connection before its upgrade."""
    router = SimpleNamespace(open_stream=replica.open_stream_at)
    request = SimpleNamespace(headers={"X-Replica-Hop": "b"} if hop else {})
    relay = Relay(cast("Any", request), cast("Any", None), "", cast("Any", router), cast("Any", replica), 1.0)
    connection = SimpleNamespace(
        version="v1", identity=identity, client=None, relay=relay, session=SimpleNamespace(owner="")
    )
    made = Entrance(cast("Dispatcher", replica), cast("Authenticator", replica))
    return made, cast("Newcomer", connection)


def hello(**fields: Any) -> Hello:
    message = parse_message({"type": "hello", **fields})
    assert isinstance(message, Hello)
    return message


def resuming() -> Hello:
    return hello(resume={"session": SESSION})


async def test_a_client_with_a_key_is_admitted_before_the_upgrade() -> None:
    replica = Replica()
    entrance, newcomer = enter(replica)
    newcomer.client = entrance.before_upgrade("v1", KNOWN, newcomer.relay)
    assert newcomer.client is not None
    assert await entrance.at_hello(newcomer, hello()) is newcomer.client
    assert replica.opened == 1
    entrance.left(newcomer.client)
    entrance.left(None)
    assert replica.opened == 0


@pytest.mark.parametrize(("token", "redeemed"), [("dummy-key", None), ("tkt_dummy", KNOWN)])
async def test_the_hello_may_contain_the_key(token: str, redeemed: Identity | None) -> None:
    replica = Replica()
    entrance, newcomer = enter(replica, identity=STRANGER)
    assert entrance.before_upgrade("v1", STRANGER, newcomer.relay) is None
    replica.home = "b"
    with pytest.raises(Relayed):
        await entrance.at_hello(newcomer, hello(token=token, resume={"session": SESSION}))
    assert replica.passed_to == [("b", redeemed)], "a ticket that is used up is replaced"
    assert (newcomer.identity, newcomer.session.owner, replica.opened) == (KNOWN, KNOWN.owner, 0)


async def test_nobody_without_a_key_is_passed_on() -> None:
    replica = Replica()
    replica.home = replica.roomy = "b"
    entrance, newcomer = enter(replica, identity=STRANGER)
    with pytest.raises(CloseConnection) as closed:
        await entrance.at_hello(newcomer, hello(token="wrong", resume={"session": SESSION}))  # noqa: S106
    assert closed.value.code == CloseCode.UNAUTHORIZED
    assert replica.passed_to == []


async def test_a_session_that_was_sent_elsewhere_is_passed_on_even_from_a_full_replica() -> None:
    replica = Replica()
    replica.home, replica.refusal = "b", Saturated("full", 5)
    entrance, newcomer = enter(replica)
    assert entrance.before_upgrade("v1", KNOWN, newcomer.relay) is None
    with pytest.raises(Relayed):
        await entrance.at_hello(newcomer, resuming())
    assert newcomer.relay.taken


async def test_a_replica_that_does_not_take_a_stream_leaves_it_here() -> None:
    replica = Replica()
    replica.home, replica.accepts = "b", False
    entrance, newcomer = enter(replica)
    assert await entrance.at_hello(newcomer, resuming())
    assert not newcomer.relay.taken
    assert replica.opened == 1


async def test_a_stream_that_finds_no_room_goes_where_there_is_some() -> None:
    replica = Replica()
    replica.refusal, replica.roomy = Saturated("full", 5), "c"
    entrance, newcomer = enter(replica)
    assert entrance.before_upgrade("v1", KNOWN, newcomer.relay) is None
    with pytest.raises(Relayed):
        await entrance.at_hello(newcomer, hello())
    assert replica.passed_to == [("c", None)]


async def test_without_help_a_full_replica_refuses_before_the_upgrade() -> None:
    replica = Replica()
    replica.refusal, replica.can_help = Saturated("full", 5), False
    entrance, newcomer = enter(replica)
    with pytest.raises(Saturated):
        entrance.before_upgrade("v1", KNOWN, newcomer.relay)


async def test_a_stream_that_was_passed_on_is_not_passed_on_again() -> None:
    replica = Replica()
    replica.refusal, replica.home, replica.roomy = Saturated("full", 5), "b", "c"
    entrance, newcomer = enter(replica, hop=True)
    with pytest.raises(Saturated):
        entrance.before_upgrade("v1", KNOWN, newcomer.relay)


@pytest.mark.parametrize(
    ("refusal", "code"),
    [(Saturated("full", 5), CloseCode.OVERLOADED), (OverLimit("quota", 5), CloseCode.LIMITS)],
)
async def test_who_is_refused_after_the_upgrade_learns_why(refusal: Exception, code: CloseCode) -> None:
    replica = Replica()
    replica.refusal = refusal
    entrance, newcomer = enter(replica, identity=STRANGER)
    with pytest.raises(CloseConnection) as closed:
        await entrance.at_hello(newcomer, hello(token="dummy-key"))  # noqa: S106
    assert closed.value.code == code
