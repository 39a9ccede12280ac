"""Loaded by Schemathesis (SCHEMATHESIS_HOOKS): bodies that it cannot write by itself, and checks of ours."""

from __future__ import annotations

from typing import Any

import msgpack
import schemathesis

#: What a stranger must never read in an answer: places, modules and names of ours.
LEAKS = (
    "Traceback",
    "site-packages",
    "streamer/",
    "inference/",
    ".py",
    "/usr/",
    "/opt/",
    "/tmp/",  # noqa: S108 - a text to look for
    "/root",
    "/home",
    "memfd",
    "frame-ring",
    "onnxruntime",
    "aiohttp",
    "Python/",
)
#: The page's own description of the interface, and metrics, whose help texts name processes.
_OPEN_WORDS = ("/openapi.json", "/metrics", "/docs", "/redoc")


@schemathesis.serializer("application/sdp", "application/trickle-ice-sdpfrag")
def as_text(_context: Any, value: Any) -> bytes:
    """SDP is text, whatever was drawn."""
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")


@schemathesis.deserializer("application/msgpack")
def from_msgpack(_context: Any, response: Any) -> Any:
    """Answers in msgpack have the schema of those in JSON."""
    return msgpack.unpackb(response.content)


@schemathesis.check
def only_503_with_a_time(_context: Any, response: Any, _case: Any) -> None:
    """Nothing that is sent makes the service fail; it may only be busy, and then says until when."""
    if response.status_code >= 500:
        assert response.status_code == 503, f"answered {response.status_code}"
        assert "retry-after" in response.headers, "503 without Retry-After"


@schemathesis.check
def typed_and_silent(_context: Any, response: Any, case: Any) -> None:
    """Every body has a type, refusals are problem+json, and nothing of the inside shows."""
    types = response.headers.get("content-type", [""])
    if response.content:
        assert types[0], "a body without Content-Type"
    if response.status_code >= 400 and case.method.upper() != "HEAD":
        assert types[0].startswith("application/problem+json"), f"a refusal as {types[0]!r}"
    server = " ".join(response.headers.get("server", []))
    shown = server if case.path.startswith(_OPEN_WORDS) else f"{server} {response.text}"
    # A refusal repeats the value that it found, so what the request holds itself is no leak.
    sent = f"{case.path_parameters} {case.query} {case.headers} {case.cookies} {case.body}"
    found = [leak for leak in LEAKS if leak in shown and leak not in sent]
    assert not found, f"the answer shows {found}"
