"""A ticket is valid once, for a minute and only for streams, and the number of tickets is bounded."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from streamer.access.access_settings import AccessSettings
from streamer.access.identity import ALL_SCOPES, Identity, Quotas, Scope
from streamer.access.key_ring import digest_of
from streamer.http import tickets as module
from streamer.http.authentication import Authenticator, make_authenticator
from streamer.http.tickets import MAX_TICKETS_OF_ONE, VALID_S, Tickets, TicketStore, TooManyTickets, is_ticket

ANN = Identity("ann", ALL_SCOPES, Quotas(streams=3), until=99.0)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def make_box(clock: Clock) -> TicketStore:
    numbers = itertools.count()
    return TicketStore(lambda: f"0-{next(numbers)}", clock)


def test_a_ticket_is_good_once_and_for_streams_alone() -> None:
    store = make_box(Clock())
    ticket = store.issue(ANN)
    assert is_ticket(ticket)
    found = store.redeem(ticket)
    assert found is not None
    assert found.scopes == {Scope.STREAM}
    assert (found.name, found.owner, found.quotas.streams, found.until) == ("ann", "ann", 3, 99.0)
    assert store.redeem(ticket) is None
    assert len(store) == 0


def test_a_ticket_ends_after_a_minute() -> None:
    clock = Clock()
    store = make_box(clock)
    late, in_time = store.issue(ANN), store.issue(ANN)
    clock.now = VALID_S - 0.1
    assert store.redeem(in_time) is not None
    clock.now = VALID_S
    assert store.redeem(late) is None


def test_their_number_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    store = make_box(clock)
    for _ in range(MAX_TICKETS_OF_ONE):
        store.issue(ANN)
    with pytest.raises(TooManyTickets, match="of this client"):
        store.issue(ANN)
    bob = Identity("bob", frozenset({Scope.STREAM}))
    store.issue(bob)
    monkeypatch.setattr(module, "MAX_TICKETS", MAX_TICKETS_OF_ONE + 1)
    with pytest.raises(TooManyTickets, match="here"):
        store.issue(bob)
    clock.now = VALID_S
    store.issue(ANN)
    assert len(store) == 1, "those that are too old are forgotten"


async def test_another_process_learns_of_a_ticket_all_that_its_issuer_knows() -> None:
    store = make_box(Clock())
    camera = Identity("camera", frozenset({Scope.STREAM}), Quotas(sessions=2), until=9.0, key="0f" * 8)

    async def ask(ticket: str) -> Mapping[str, Any] | None:
        found = store.redeem(ticket)
        return None if found is None else module._to_json(found)

    elsewhere = Tickets(make_box(Clock()), ask)
    ticket = store.issue(camera)
    assert await elsewhere.redeem(ticket) == camera
    assert await elsewhere.redeem(ticket) is None


@pytest.mark.parametrize(
    ("later", "good"),
    [("camera stream", True), ("camera predict", False), ("other stream", False)],
)
async def test_a_ticket_is_worth_no_more_than_its_key_is_now(
    tmp_path: Path, later: str, *, good: bool
) -> None:
    def authenticator(text: str) -> Authenticator:
        name, scope = text.split()
        entry = {"name": name, "sha256": digest_of("dummy-key"), "scopes": [scope]}
        (tmp_path / "keys.json").write_text(json.dumps({"keys": [entry]}))
        made = make_authenticator(AccessSettings(api_keys_file=tmp_path / "keys.json"), tmp_path)
        made.accept_tickets(Tickets(store, ask), web.Application())
        return made

    async def ask(_: str) -> Mapping[str, Any] | None:
        return None

    store = make_box(Clock())
    holder = await authenticator("camera stream").identify("dummy-key", "addr:1")
    assert holder is not None
    ticket = store.issue(holder)
    assert (await authenticator(later).identify(ticket, "addr:1", tickets=True) is not None) is good
    assert len(store) == 0, "it is used up in either case"


@pytest.mark.parametrize(
    "answer", [None, {}, {"name": "x"}, {"name": "x", "scopes": ["root"]}, {"scopes": 5}]
)
async def test_what_an_issuer_does_not_confirm_is_not_good(answer: Mapping[str, Any] | None) -> None:
    async def ask(_: str) -> Mapping[str, Any] | None:
        return answer

    assert await Tickets(make_box(Clock()), ask).redeem("tkt_1-x") is None
