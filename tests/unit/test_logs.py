"""Logs: JSON that always parses, no secrets, and no flood."""

from __future__ import annotations

import json
import logging

import pytest

from streamer.logs import AtMostOncePerSecond, JsonFormatter, TextFormatter, redact


def record(message: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord("streamer.test", logging.WARNING, __file__, 1, message, args, None)


@pytest.mark.parametrize("nasty", ["line\nbreak", "\x1b[31mred", "\u2028", 'quote"', "x" * 10_000])
def test_a_json_line_is_one_line_that_parses(nasty: str) -> None:
    line = JsonFormatter().format(record("%s", nasty))
    assert "\n" not in line
    entry = json.loads(line)
    assert (entry["level"], entry["logger"]) == ("warning", "streamer.test")
    assert len(entry["message"]) <= 4000


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("opening rtsp://user:hunter2@cam/1", "hunter2"),
        ("GET /v1/stream?token=abc123&x=1", "abc123"),
        ("Authorization: Bearer s3cr3t", "s3cr3t"),
    ],
)
def test_secrets_are_replaced(text: str, secret: str) -> None:
    assert secret not in redact(text)
    assert secret not in JsonFormatter().format(record(text))
    assert secret not in TextFormatter().format(record(text))


def test_a_flood_becomes_one_line_a_second() -> None:
    limiter = AtMostOncePerSecond()
    passed = [limiter.filter(record("bad request")) for _ in range(100)]
    assert passed.count(True) == 1
