"""Adds body formats and checks of our own to Schemathesis, which loads this module by SCHEMATHESIS_HOOKS."""

from __future__ import annotations

from typing import Any

import msgpack
import schemathesis

#: Texts that no answer may show to a stranger: internal paths, modules and names.
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
#: Paths whose bodies may contain such texts: the API description, its pages, and the metrics, whose help
#: texts name processes.
_OPEN_WORDS = ("/openapi.json", "/metrics", "/docs", "/redoc")


@schemathesis.serializer("application/sdp", "application/trickle-ice-sdpfrag")
def as_text(_context: Any, value: Any) -> bytes:
    """Encode any generated value as text, because SDP is text."""
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")


@schemathesis.deserializer("application/msgpack")
def from_msgpack(_context: Any, response: Any) -> Any:
    """Decode an answer in msgpack, which has the same schema as the answer in JSON."""
    return msgpack.unpackb(response.content)


@schemathesis.check
def only_503_with_a_time(_context: Any, response: Any, _case: Any) -> None:
    """Check that no request makes the service fail; 503 with a Retry-After header is the only 5xx allowed."""
    if response.status_code >= 500:
        assert response.status_code == 503, f"answered {response.status_code}"
        assert "retry-after" in response.headers, "503 without Retry-After"


@schemathesis.check
def typed_and_silent(_context: Any, response: Any, case: Any) -> None:
    """Check that bodies have a type, that refusals are problem+json, and that no internal text shows."""
    types = response.headers.get("content-type", [""])
    if response.content:
        assert types[0], "a body without Content-Type"
    if response.status_code >= 400 and case.method.upper() != "HEAD":
        assert types[0].startswith("application/problem+json"), f"a refusal as {types[0]!r}"
    server = " ".join(response.headers.get("server", []))
    shown = server if case.path.startswith(_OPEN_WORDS) else f"{server} {response.text}"
    # A refusal repeats the rejected value, so a text that the request itself contains is no leak.
    sent = f"{case.path_parameters} {case.query} {case.headers} {case.cookies} {case.body}"
    found = [leak for leak in LEAKS if leak in shown and leak not in sent]
    assert not found, f"the answer shows {found}"
