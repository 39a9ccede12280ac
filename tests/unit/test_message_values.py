"""Tests that checking a message takes little memory, and that errors name and shorten what they refuse."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from streamer.protocol.message_values import MAX_PATH_CHARS, ProtocolError, check_values, show

#: One long key over a long list. If the check built a path for every value, it would take gigabytes.
LONG_KEY = {"type": "hello", "🎥" * 32_500: list(range(16_300))}


def test_a_walk_costs_memory_by_the_messages_size_not_by_key_times_values() -> None:
    tracemalloc.start()
    try:
        check_values(LONG_KEY, None)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1 << 20


def test_a_message_of_too_many_values_is_refused_wherever_they_stand() -> None:
    deep: Any = 0
    for _ in range(20):
        deep = [deep, [0] * 10]
    check_values({"type": "x", "a": deep}, 300)
    with pytest.raises(ProtocolError, match="more than 200 values") as caught:
        check_values({"type": "x", "a": deep}, 200)
    assert caught.value.code == "too_large"


def test_a_long_path_keeps_its_end() -> None:
    message: dict[str, Any] = {"last": float("nan")}
    for _ in range(20):
        message = {"k" * 1000: message}
    with pytest.raises(ProtocolError) as caught:
        check_values(message, None)
    assert len(caught.value.field) == MAX_PATH_CHARS
    assert caught.value.field.endswith("….last")
    assert len(str(caught.value)) < 2 * MAX_PATH_CHARS


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("x" * 2_000_000, "'" + "x" * 60 + "'…"),
        (b"\xff" * 2_000_000, "b'" + "\\xff" * 60 + "'…"),
        (list(range(1_000_000)), "a list of 1000000"),
        ({str(number): number for number in range(1000)}, "a map of 1000"),
        (1 << 100_000, "a whole number of 100001 bits"),
        ("short", "'short'"),
        (7, "7"),
        (None, "None"),
    ],
    ids=["text", "bytes", "list", "map", "number", "short text", "short number", "none"],
)
def test_what_a_client_sent_is_shown_short(value: object, shown: str) -> None:
    tracemalloc.start()
    try:
        assert show(value) == shown
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 10_000


def test_the_message_of_the_test_is_one_that_a_client_can_send() -> None:
    assert len(json.dumps(LONG_KEY, ensure_ascii=False).encode()) > 160_000
