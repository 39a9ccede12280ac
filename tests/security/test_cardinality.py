"""S16, S17: text from clients creates no new metric series, and every line of the log stays valid JSON."""

from __future__ import annotations

import json
import random
import re
import string
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers.model_factory import null_model
from tests.helpers.raw_websocket import TEXT, RawSocket, frame
from tests.helpers.service import PATIENT, Service

REQUESTS, FULL_REQUESTS = 2_000, 20_000
CANARY = "canary-value-77"
#: Begins each random text of a client, so that a series that contains one can be recognised.
MARK = "zqx"
#: Texts that could break a log line, a terminal or a JSON parser.
HOSTILE = [
    "\r\n",
    "\n",
    "\x1b[31m",
    "\u2028",
    "\u2029",
    "\x85",
    "\x00",
    '"}',
    "\\",
    "\ud7ff",
    "\U0001f600",
    "\u202e",
]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    model = null_model(tmp_path_factory.mktemp("models") / "null.onnx")
    settings = PATIENT | {"MODEL_V1_PATH": str(model), "API_KEYS": "test-key-0123456789"}
    with Service(settings | {"ICE_SERVERS": "stun:127.0.0.1:9"}, log_level="debug") as running:
        yield running


def series(service: Service) -> set[str]:
    """Return the name and the labels of each metric series."""
    text = service.get("/metrics")[1].decode()
    return {line.rpartition(" ")[0] for line in text.splitlines() if line and not line.startswith("#")}


def word(rng: random.Random) -> str:
    return MARK + "".join(rng.choices(string.ascii_letters + string.digits, k=10))


def drawn(rng: random.Random, keep: bool = True) -> bytes:
    """Return a request with a random method, path and headers; ``keep`` keeps the connection alive."""
    method = rng.choice(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
    path = rng.choice(
        [
            f"/{word(rng)}",
            f"/v{rng.randrange(10**6)}/predict",
            f"/v1/webrtc/{word(rng)}",
            f"/v1/whip/{word(rng)}/results",
            f"/v1/stream/{word(rng)}",
            f"/v1/predict?name={word(rng)}",
            f"/drift/status?stream={word(rng)}",
            f"/static/{word(rng)}.js",
        ]
    )
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: localhost",
        "Authorization: Bearer test-key-0123456789",
        f"User-Agent: {word(rng)}",
        f"X-Request-Id: {word(rng)}",
        f"X-Model-Version: {word(rng)}",
        f"Origin: https://{word(rng)}.example",
        "Content-Type: image/jpeg",
        "Content-Length: 0",
        f"Connection: {'keep-alive' if keep else 'close'}",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def assert_no_series_of(before: set[str], after: set[str], names: int) -> None:
    """Check that ``names`` texts of clients created no series.

    The service adds series of its own at any time, e.g. the capacity of a version once it has measured some
    batches, so a few new ones are allowed. Labels made of what clients send would create one for each text.
    """
    added = after - before
    assert len(added) < names / 10, added
    assert [line for line in after if MARK in line.casefold()] == []


def send_drawn(service: Service, rng: random.Random, count: int) -> None:
    for _ in range(count // 50):
        with RawSocket(service.port, timeout_s=30) as client:
            client.send(b"".join(drawn(rng) for _ in range(49)) + drawn(rng, keep=False))
            while client.receive_some():
                pass


def test_random_paths_methods_and_names_make_no_series(service: Service, full: bool) -> None:
    rng = random.Random(6)
    send_drawn(service, rng, 400)  # creates the series of each kind of answer
    before = series(service)
    count = FULL_REQUESTS if full else REQUESTS
    send_drawn(service, rng, count)
    assert_no_series_of(before, series(service), count)
    assert len(before) < 3_000


def test_names_of_streams_make_no_series(service: Service) -> None:
    rng = random.Random(7)
    before: set[str] = set()
    for number in range(80):
        with RawSocket(service.port) as client:
            client.upgraded()
            hello = {
                "type": "hello",
                "token": "test-key-0123456789",
                "client": {"name": word(rng), "version": word(rng)},
                "streams": [{"id": number % 8, "name": word(rng)}],
            }
            client.send(frame(TEXT, json.dumps(hello).encode()))
            answer = client.until(TEXT)
            assert answer is not None
            assert json.loads(answer)["type"] == "welcome", answer
        if number == 20:
            before = series(service)
    assert_no_series_of(before, series(service), 59)


def test_every_line_of_the_log_is_json_whatever_clients_write(service: Service) -> None:
    for text in HOSTILE:
        value = f"{CANARY}{text}x"
        raw = value.encode(errors="replace")
        for head in (
            b"GET /" + raw + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: " + raw + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: " + raw + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: " + raw + b"\r\n\r\n",
            raw + b" / HTTP/1.1\r\n\r\n",
        ):
            with RawSocket(service.port, timeout_s=2) as client:
                client.send(head)
                client.answer()
        with RawSocket(service.port) as client:
            client.upgraded()
            hello = {"type": "hello", "token": value, "client": {"name": value}, value: value}
            client.send(frame(TEXT, json.dumps(hello).encode()))
            client.close_code()
        with RawSocket(service.port) as client:
            client.upgraded()
            accepted: dict[str, Any] = {
                "type": "hello",
                "token": "test-key-0123456789",
                "client": {"name": value},
                "streams": [{"id": 0, "name": value}],
                value: 1,
            }
            client.send(frame(TEXT, json.dumps(accepted).encode()))
            client.until(TEXT)
    for line in service.log.split("\n")[:-1]:
        entry = json.loads(line)
        assert {"time", "level", "logger", "message"} <= entry.keys()
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202e]", line), line


def test_the_log_holds_no_key(service: Service) -> None:
    assert "test-key-0123456789" not in service.log
    assert "Traceback" not in service.log
