"""S4: no header value takes long to process or causes a server error."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.helpers.model_factory import null_model
from tests.helpers.raw_websocket import RawSocket
from tests.helpers.service import Service

pytestmark = pytest.mark.alone

KEY = "test-key-0123456789abcdef"
#: Texts on which parsers with backtracking or recursion are slow or fail.
VALUES = {
    "quotes": '"' * 8000,
    "escaped quotes": '"\\' * 2600,
    "brackets": "(" * 8000,
    "square brackets": "[" * 8000,
    "commas": "a," * 4000,
    "semicolons": "a;" * 4000,
    "parameters": "a=b;" * 2000,
    "weights": "a;q=0.1," * 1000,
    "dots": "a." * 4000,
    "colons": ":" * 8000,
    "addresses": "1.1.1.1," * 1000,
    "ranges": "bytes=" + "0-1," * 1900,
    "digits": "9" * 8000,
    "blanks": "a" + " " * 7000 + "a",
}
NAMES = (
    *(
        "Content-Type",
        "Content-Disposition",
        "Accept",
        "Authorization",
        "Cookie",
        "Origin",
        "Range",
        "If-Match",
    ),
    *("If-None-Match", "X-Forwarded-For", "Forwarded", "X-Request-Id", "X-Model-Version", "Last-Event-ID"),
    *(
        "Sec-WebSocket-Protocol",
        "Sec-WebSocket-Extensions",
        "Access-Control-Request-Headers",
        "X-Replica-Hop",
    ),
)
ROUTES = (
    *("POST /v1/predict", "POST /v1/webrtc", "POST /v1/whip", "POST /reference/update", "POST /tickets"),
    *("GET /v1/stream", "GET /v1/whip/abc/results", "PATCH /v1/whip/abc", "GET /", "GET /data/sample.mp4"),
)
#: Limit for an answer, seconds. The slowest normal answer takes a few milliseconds; one header once took six
#: seconds.
SLOW_S = 0.5


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    model = null_model(tmp_path_factory.mktemp("models") / "null.onnx")
    with Service({"MODEL_V1_PATH": str(model), "API_KEYS": KEY}) as running:
        yield running


def ask(service: Service, route: str, name: str, value: str) -> tuple[float, int]:
    """Send a request with this header; return the seconds until its answer, and the status."""
    headers = {"Host": "localhost", "Authorization": f"Bearer {KEY}", "Connection": "close"}
    if not route.startswith("GET"):
        headers |= {"Content-Length": "3", "Content-Type": "image/jpeg"}
    headers[name] = value
    lines = [f"{route} HTTP/1.1", *(f"{each}: {text}" for each, text in headers.items())]
    begun = time.perf_counter()
    with RawSocket(service.port) as client:
        client.send("\r\n".join([*lines, "", ""]).encode() + (b"abc" if "Content-Length" in headers else b""))
        status, _, _ = client.answer()
    return time.perf_counter() - begun, status


@pytest.mark.parametrize("route", ROUTES)
def test_no_header_takes_long_or_ends_in_a_fault(service: Service, route: str) -> None:
    slow, failed = {}, {}
    for name in NAMES:
        for what, value in VALUES.items():
            took_s, status = ask(service, route, name, value)
            for _ in range(5):
                if took_s > SLOW_S:
                    # Try again, because the machine may have been busy with something else.
                    took_s = min(took_s, ask(service, route, name, value)[0])
            if took_s > SLOW_S:
                slow[f"{name}: {what}"] = round(took_s, 2)
            if status >= 500 and status != 503:
                failed[f"{name}: {what}"] = status
    assert (slow, failed) == ({}, {})


def test_the_log_has_no_fault(service: Service) -> None:
    assert "Traceback" not in service.log
