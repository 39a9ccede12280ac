"""Tests that a log entry is one line, that JSON entries parse, and that secrets and floods are kept out."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys

import pytest

from inference.core.log_format import JsonFormatter, TextFormatter, hide, redact
from inference.core.log_limit import MAX_KINDS, UNLIMITED, OncePerSecond
from inference.core.log_output import PipeHandler
from tests.helpers.service import ROOT

NASTY = [
    "line\nbreak",
    "\x1b[31mred",
    "\u2028",
    "\u2029",
    "\x85",
    "\x00",
    "\ud800",
    'quote"',
    "x" * 10_000,
    "\x0b",
]


def record(message: object, *args: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("streamer.test", logging.WARNING, __file__, 1, message, args, None)
    made.__dict__.update(extra)
    return made


class Unprintable:
    """Raises ValueError when it is formatted."""

    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


def one_entry(line: str) -> dict[str, object]:
    """Parse a line strictly: fail on line breaks, on NaN and Infinity, and on lone surrogates."""
    assert len(line.splitlines()) == 1
    entry = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    json.dumps(entry, ensure_ascii=False).encode()
    assert isinstance(entry, dict)
    return entry


@pytest.mark.parametrize("nasty", NASTY)
def test_a_json_line_is_one_line_that_parses(nasty: str) -> None:
    entry = one_entry(JsonFormatter().format(record("%s", nasty, name_of=nasty)))
    assert (entry["level"], entry["logger"]) == ("warning", "streamer.test")
    assert len(str(entry["message"])) <= 4000


@pytest.mark.parametrize("nasty", NASTY)
def test_a_text_line_is_one_printable_line(nasty: str) -> None:
    line = TextFormatter().format(record("%s", nasty))
    assert line.isprintable()
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize(
    "extra",
    [
        {"cost": float("nan")},
        {"cost": [float("inf"), {"deep": float("-inf")}]},
        {"object": Unprintable()},
        {"bytes": b"\xff\x00"},
        {"keys": {1: "a", ("b",): {"c"}}},
        {"many": list(range(100_000))},
    ],
)
def test_extras_of_any_kind_are_json(extra: dict[str, object]) -> None:
    line = JsonFormatter().format(record("message", **extra))
    one_entry(line)
    assert len(line) < 10_000


@pytest.mark.parametrize("arguments", [("%d", "text"), ("%s %s", 1), ("%s", Unprintable()), (Unprintable(),)])
def test_a_record_that_cannot_be_formatted_is_still_a_line(arguments: tuple[object, ...]) -> None:
    one_entry(JsonFormatter().format(record(*arguments)))
    assert TextFormatter().format(record(*arguments)).isprintable()


def test_a_traceback_stands_in_the_line_of_its_record_and_keeps_its_end() -> None:
    made = record("failed")
    try:
        raise ValueError("the\ncause " + "x" * 9000 + " at its end: token=abc123")  # noqa: TRY301 - is the test
    except ValueError as error:
        made.exc_info = (ValueError, error, error.__traceback__)
    text = TextFormatter().format(made)
    assert text.isprintable()
    exception = str(one_entry(JsonFormatter().format(made))["exception"])
    assert "Traceback" in exception
    assert exception.endswith("at its end: token=***")
    assert len(exception) < 4200


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("opening rtsp://user:hunter2@cam/1", "hunter2"),
        ("GET /v1/stream?token=abc123&x=1", "abc123"),
        ("Authorization: Bearer s3cr3t", "s3cr3t"),
        ("Authorization: Basic dXNlcg==", "dXNlcg"),
        ("x-api-key: s3cr3t", "s3cr3t"),
        ("x-amz-security-token:s3cr3t", "s3cr3t"),
        ('{"token": "s3cr3t", "a": 1}', "s3cr3t"),
        ("got eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "eyJzdWIiOiIxIn0"),
        ("aws_secret_access_key=abc/def+1", "abc/def"),
    ],
)
def test_secrets_are_replaced(text: str, secret: str) -> None:
    assert secret not in redact(text)
    assert secret not in JsonFormatter().format(record(text))
    assert secret not in TextFormatter().format(record(text))
    assert secret not in JsonFormatter().format(record("x", header=text))


def test_libraries_that_log_credentials_are_not_heard_at_level_debug() -> None:
    code = (
        "import logging; from streamer.core.logs import set_up_logging; set_up_logging('debug', 'json');"
        "names = ('streamer.x', 'botocore.auth', 'botocore.parsers', 'aiobotocore.endpoint', 'urllib3.x');"
        "print([name for name in names if logging.getLogger(name).isEnabledFor(logging.DEBUG)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "['streamer.x']\n"


def test_known_keys_are_replaced_wherever_they_stand() -> None:
    hide(["plain-looking-key", "abc"])
    try:
        assert redact("the key plain-looking-key of abc") == "the key *** of abc"
    finally:
        hide([])


def test_redacting_a_long_text_takes_no_time_that_grows_with_its_square() -> None:
    for char in ("a", '"', "secret", " ", "bearer "):
        redact(char * 8000)  # would take minutes if the time grew with the square


def test_a_flood_becomes_one_line_a_second_and_says_how_many_more() -> None:
    now = [0.0]
    held: list[None] = []
    limiter = OncePerSecond(lambda: held.append(None), lambda: now[0])
    passed = [limiter.filter(record("bad %s", number)) for number in range(100)]
    assert passed.count(True) == 1
    assert len(held) == 99
    now[0] = 1.5
    last = record("bad %s", 100)
    assert limiter.filter(last)
    assert last.getMessage() == "bad 100 (and 99 more like it)"


def test_kinds_are_limited_apart() -> None:
    limiter = OncePerSecond(clock=lambda: 0.0)
    assert limiter.filter(record("one %s", 1))
    assert limiter.filter(record("another %s", 1))
    assert not limiter.filter(record("one %s", 2))


def test_libraries_that_put_input_into_their_templates_are_one_kind() -> None:
    limiter = OncePerSecond(clock=lambda: 0.0)
    records = [record(f"input {number}") for number in range(50)]
    for made in records:
        made.name = "aiohttp.server"
    assert [limiter.filter(made) for made in records].count(True) == 1


def test_endless_kinds_are_bounded_in_lines_and_memory() -> None:
    limiter = OncePerSecond(clock=lambda: 0.0)
    passed = [limiter.filter(record(f"kind {number}")) for number in range(5000)]
    assert passed.count(True) <= MAX_KINDS + 1


def test_nobody_waits_for_the_reader_and_the_next_line_says_what_is_missing() -> None:
    reader, writer = os.pipe2(os.O_NONBLOCK)
    handler = PipeHandler(writer, json_lines=True, mark=b"")
    for number in range(1000):
        handler.handle(record("%s", f"{number} " + "x" * 500))  # far more than a pipe holds
    received = b""
    while len(chunk := _read(reader)):
        received += chunk
    handler.handle(record("at last"))
    received += _read(reader)
    entries = [one_entry(line) for line in received.decode().splitlines()]
    whole = sum(1 for entry in entries if "x" * 500 in str(entry["message"]))
    assert 50 < whole < 1000
    assert entries[-2]["message"] == f"{1000 - whole} log lines were dropped: nobody read them"
    assert entries[-1]["message"] == "at last"
    os.close(reader)
    handler.handle(record("nobody is there"))  # neither raises nor waits
    os.close(writer)


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 1 << 20)
    except BlockingIOError:
        return b""


def test_every_logger_without_a_limit_exists() -> None:
    sources = [
        path.read_text() for folder in ("inference", "streamer") for path in (ROOT / folder).rglob("*.py")
    ]
    unknown = [name for name in UNLIMITED if not any(f'getLogger("{name}")' in text for text in sources)]
    assert unknown == []
