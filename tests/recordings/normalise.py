"""Replaces ids, ports, times and digests, which differ between runs; everything else stays exact."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

#: Request id that every HTTP request of the recordings sends, so that answers repeat a known id.
REQUEST_ID = "recorded"

_PATTERNS = (
    (re.compile(r"tkt_[\w-]+"), "<ticket>"),
    (re.compile(r"(?<![\w-])\d+-[\w-]{24}(?![\w-])"), "<session>"),
    (re.compile(r"(?<!\w)[0-9a-f]{64}(?!\w)"), "<sha256>"),
    (re.compile(r"(?<!\w)[0-9a-f]{16}(?!\w)"), "<id>"),
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:<port>"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00"), "<time>"),
    (re.compile(r" at 0x[0-9a-f]+"), ""),
)
#: Fields of which only the shape is recorded, because their values depend on time, machine or timing.
_SHAPED_FIELDS = frozenset(
    {
        "batches",
        "dtls",
        "elapsed_s",
        "ice",
        "last_check",
        "published_at",
        "reconnect_ms",
        "sandbox",
        "sample",
        "samples",
        "t",
        "t1",
        "t2",
        "timings_ms",
        "video",
        "win",
    }
)
#: Headers that are not recorded, because they belong to the connection or the time of the answer.
_LEFT_OUT_HEADERS = frozenset({"connection", "content-length", "date", "keep-alive", "transfer-encoding"})
#: Headers of which only the presence is recorded.
_PRESENT_HEADERS = {"etag": "<etag>", "retry-after": "<seconds>"}
#: SDP attributes whose values are part of the interface; for all others only the name is recorded.
_SDP_VALUES = frozenset(
    {
        *("extmap", "fmtp", "group", "max-message-size", "mid", "rtcp-fb", "rtpmap", "sctp-port", "sctpmap"),
        "setup",
    }
)


def normalise_text(text: str) -> str:
    """Return the text with ids, digests and ports replaced by placeholders."""
    for pattern, name in _PATTERNS:
        text = pattern.sub(name, text)
    return text


def normalise(value: Any, field: str = "") -> Any:
    """Return a JSON value with everything that varies replaced; ``field`` is the name of its field."""
    if field == "sdp" and isinstance(value, str):
        return normalise_sdp(value)
    if field == "max_fps":  # a slow machine grants less
        return "<number or null>"
    if field in _SHAPED_FIELDS or (field == "alive" and not isinstance(value, bool)):
        return shape(value)
    if isinstance(value, Mapping):
        return {normalise_text(str(name)): normalise(item, str(name)) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [normalise(item) for item in value]
    return normalise_text(value) if isinstance(value, str) else value


def shape(value: Any) -> Any:
    """Return the keys and types of a value; a list becomes the distinct shapes of its items."""
    if isinstance(value, Mapping):
        return {str(name): shape(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        found: list[Any] = []
        for item in map(shape, value):
            if item not in found:
                found.append(item)
        return found
    if isinstance(value, bool):
        return "<true or false>"
    if isinstance(value, int | float):
        return "<number>"
    return "<null>" if value is None else "<text>"


def normalise_headers(headers: list[tuple[str, str]]) -> dict[str, str]:
    """Return the headers that belong to the interface by lower-case name, with repeated ones joined."""
    kept: dict[str, str] = {}
    for name, value in ((name.lower(), value) for name, value in headers):
        if name not in _LEFT_OUT_HEADERS:
            text = _PRESENT_HEADERS.get(name) or normalise_text(value)
            kept[name] = f"{kept[name]}, {text}" if name in kept else text
    return kept


def normalise_sdp(text: str) -> list[str]:
    """Return an SDP's lines, with values of codecs and set-up but only the names of all other attributes."""
    lines: list[str] = []
    for line in text.splitlines():
        kind, _, rest = line.partition("=")
        name, colon, _ = rest.partition(":")
        if kind == "a":
            line = line if not colon or name in _SDP_VALUES else f"a={name}:…"
        elif kind == "m":
            line = re.sub(r" \d+ ", " <port> ", line, count=1)
        else:
            line = f"{kind}=…"
        # Leave candidates out: their number depends on how many addresses the machine has.
        if name != "candidate":
            lines.append(line)
    return lines
