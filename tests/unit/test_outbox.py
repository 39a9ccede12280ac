"""The outbox keeps order, and under a slow reader only the newest result of a live stream."""

from __future__ import annotations

from typing import Any

import pytest

from streamer.outbox import MAX_MESSAGES, Outbox, OutboxFull


def result(seq: int, stream: int = 0) -> dict[str, Any]:
    return {"type": "result", "stream": stream, "seq": seq, "ack": seq, "win": 2, "boxes": []}


def drain(outbox: Outbox) -> list[dict[str, Any]]:
    messages = []
    while (message := outbox.take()) is not None:
        messages.append(message)
    return messages


def test_messages_leave_in_order() -> None:
    outbox = Outbox()
    for seq in (1, 2, 3):
        assert outbox.put(result(seq), replace_results=False) == 0
    assert [m["seq"] for m in drain(outbox)] == [1, 2, 3]


def test_a_replaced_result_becomes_a_drop_so_that_no_frame_goes_missing() -> None:
    outbox = Outbox()
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
    outbox = Outbox()
    for _ in range(MAX_MESSAGES):
        outbox.put({"type": "flow"}, replace_results=True)
    with pytest.raises(OutboxFull):
        outbox.put({"type": "flow"}, replace_results=True)
