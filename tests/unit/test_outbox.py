"""Tests that the outbox keeps order, limits messages and bytes, and drops old results for slow readers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streamer.core.byte_budget import ByteBudget
from streamer.protocol.wire import SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK, encode_message
from streamer.websocket.outbox import FREE_BYTES, MAX_BYTES, MAX_MESSAGES, Outbox, OutboxFull

#: A message that is not a result.
FLOW: Any = {"type": "flow"}


def result(seq: int, stream: int = 0, boxes: int = 0) -> Any:
    box = [100.25, 100.5, 200.25, 200.5, 0.9321, 3]
    return {"type": "result", "stream": stream, "seq": seq, "ack": seq, "win": 2, "boxes": [box] * boxes}


def make(budget: ByteBudget | None = None, client: str = "a") -> Outbox:
    shared = budget or ByteBudget(64 << 20)
    return Outbox(
        lambda message: encode_message(message, SUBPROTOCOL_JSON), lambda: shared.hold(client, "messages")
    )


def drain(outbox: Outbox) -> list[dict[str, Any]]:
    messages = []
    while (message := outbox.take()) is not None:
        messages.append(json.loads(message))
    return messages


def fill(outbox: Outbox, message: Any) -> int:
    """Put the message until the outbox is full; return how many fitted."""
    count = 0
    with pytest.raises(OutboxFull):
        while True:
            outbox.put(message, replace_results=False)
            count += 1
    return count


def test_messages_leave_in_order() -> None:
    outbox = make()
    for seq in (1, 2, 3):
        assert outbox.put(result(seq), replace_results=False) == 0
    assert [m["seq"] for m in drain(outbox)] == [1, 2, 3]


def test_a_replaced_result_becomes_a_drop_so_that_no_frame_goes_missing() -> None:
    outbox = make()
    outbox.put(result(1), replace_results=True)
    outbox.put(result(1, stream=1), replace_results=True)
    assert outbox.put(result(2), replace_results=True) == 1
    first, other, newest = drain(outbox)
    assert first == {
        "type": "drop",
        "stream": 0,
        "from": 1,
        "to": 1,
        "ack": 1,
        "win": 2,
        "reason": "superseded",
    }
    assert (other["type"], other["seq"]) == ("result", 1)
    assert (newest["type"], newest["seq"]) == ("result", 2)


def test_a_reader_that_never_reads_hits_a_bound() -> None:
    outbox = make()
    for _ in range(MAX_MESSAGES):
        outbox.put(FLOW, replace_results=True)
    with pytest.raises(OutboxFull):
        outbox.put(FLOW, replace_results=True)


@pytest.mark.parametrize("subprotocol", [SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK])
def test_large_results_hit_the_bound_in_bytes_long_before_the_one_in_messages(subprotocol: str) -> None:
    budget = ByteBudget(64 << 20)
    outbox = Outbox(
        lambda message: encode_message(message, subprotocol), lambda: budget.hold("a", "messages")
    )
    assert 20 < fill(outbox, result(1, boxes=1000)) < 100
    assert MAX_BYTES - (100 << 10) < outbox._bytes <= MAX_BYTES
    assert budget.held_bytes == outbox._bytes - FREE_BYTES


def test_what_waits_beyond_the_free_bytes_is_held_until_it_leaves() -> None:
    budget = ByteBudget(64 << 20)
    outbox = make(budget)
    size = len(encode_message(result(1, boxes=1000), SUBPROTOCOL_JSON))
    for _ in range(5):
        outbox.put(result(1, boxes=1000), replace_results=False)
    assert budget.held_bytes == 5 * size - FREE_BYTES
    outbox.take()
    assert budget.held_bytes == 4 * size - FREE_BYTES
    assert outbox.put(result(2, boxes=1000), replace_results=True) == 4
    assert budget.held_bytes == 0
    for _ in range(5):
        outbox.put(result(1, boxes=1000), replace_results=False)
    outbox.clear()
    outbox.clear()
    assert (budget.held_bytes, outbox._bytes, len(outbox)) == (0, 0, 0)


def test_clients_that_do_not_read_share_the_budget_and_one_that_reads_needs_none_of_it() -> None:
    budget = ByteBudget(1 << 20)
    for number in range(20):
        fill(make(budget, f"greedy {number}"), result(1, boxes=500))
    assert budget.held_bytes <= 1 << 20
    polite = make(budget, "polite")
    for seq in range(1, 100):
        polite.put(result(seq, boxes=500), replace_results=False)
        assert polite.take() is not None
