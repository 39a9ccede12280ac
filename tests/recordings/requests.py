"""Defines the HTTP requests of the recordings: the name, the key and the body of each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.unit.images import encode, jpeg_claiming, scene

#: Maps the name of each dummy key to its scopes and quotas in the file of keys.
_KEYS: dict[str, tuple[list[str], dict[str, float]]] = {
    "all": (["predict", "stream", "admin"], {}),
    "predict": (["predict"], {}),
    "stream": (["stream"], {}),
    "admin": (["admin"], {}),
    "poor": (["predict", "stream"], {"requests_per_s": 1e-6, "streams": 0, "sessions": 0}),
}
PAGE = "https://app.example.com"
EVIL = "https://evil.example"


def key_text(name: str) -> str:
    """Return the dummy key of a name; a name that is not in the file of keys gives a wrong key."""
    return f"dummy-key-of-the-recordings-{name}"


def key_file() -> str:
    """Return the content of the file of keys (`API_KEYS_FILE`)."""
    entries = [
        {
            "name": name,
            "sha256": hashlib.sha256(key_text(name).encode()).hexdigest(),
            "scopes": scopes,
            "quotas": quotas,
        }
        for name, (scopes, quotas) in _KEYS.items()
    ]
    return json.dumps({"keys": entries})


@dataclass(frozen=True, slots=True)
class Body:
    """Holds the body of a request, and the name that the recording shows for it."""

    name: str
    content: bytes = b""
    content_type: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """Holds one request.

    The path and the header values may contain the placeholders `{webrtc}`, `{whip}`, `{etag}` and `{ticket}`,
    which are filled from earlier answers.
    """

    name: str
    method: str
    path: str
    key: str = ""
    body: Body = field(default_factory=lambda: Body(""))
    headers: Mapping[str, str] = field(default_factory=dict)


def form(*files: bytes, **fields: str) -> Body:
    """Return a multipart form with the given files and text fields."""
    parts = [f'Content-Disposition: form-data; name="{name}"\r\n\r\n{text}' for name, text in fields.items()]
    texts = [part.encode() for part in parts]
    head = (
        b'Content-Disposition: form-data; name="file"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    )
    texts += [head + file for file in files]
    content = b"".join(b"--recorded\r\n" + text + b"\r\n" for text in texts) + b"--recorded--\r\n"
    name = f"form of {len(files)} files and {len(fields)} fields"
    return Body(name, content, "multipart/form-data; boundary=recorded")


def as_json(name: str, content: Any) -> Body:
    """Return a JSON body."""
    return Body(name, json.dumps(content).encode(), "application/json")


def text_body(name: str, content: str, content_type: str) -> Body:
    """Return a body of text."""
    return Body(name, content.encode(), content_type)


IMAGE = encode(scene())
JPEG = Body("jpeg", IMAGE)
PNG = Body("png", encode(scene(), ".png"))
CUT_JPEG = Body("jpeg, cut off", IMAGE[: len(IMAGE) // 3])
TEXT = Body("text", b"this is no picture at all, only text")
GIF = Body("gif", b"GIF89a" + bytes(40))
HUGE_JPEG = Body("jpeg that claims 65000x16000", jpeg_claiming(65000, 16000))
#: Largest image that the recorded service accepts, bytes.
IMAGE_MAX_BYTES = 200_000
LARGE = Body("one byte too many", bytes(IMAGE_MAX_BYTES + 1))
NOISE = encode(np.random.default_rng(1).integers(0, 255, (64, 64, 3)).astype(np.uint8))
