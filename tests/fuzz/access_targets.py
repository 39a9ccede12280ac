"""Fuzz targets that read key files, key sets of issuers, tickets of other workers, forms and JSON bodies."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator

from streamer.access.jwt_keys import BadKeySet, parse_key_set
from streamer.access.key_ring import BadKeyFile, parse_keys
from streamer.http.problem_details import Problem
from streamer.http.tickets import _from_json
from streamer.imaging.image_header import Limits
from streamer.predict.image_url import ImageUrl
from streamer.predict.json_body import JsonBody
from streamer.predict.request_body import FormReader, read_boundary
from tests.fuzz.target import Target

_ALGORITHMS = ("RS256", "ES256", "EdDSA")


def _key_files() -> Iterator[bytes]:
    yield (
        b'[[keys]]\nname = "camera-7"\nsha256 = "' + b"ab" * 32 + b'"\nscopes = ["stream"]\n'
        b"expires = 2027-01-01T00:00:00Z\n[keys.quotas]\nstreams = 4\n"
    )
    yield json.dumps({"keys": [{"name": "a", "sha256": "cd" * 32, "scopes": ["predict", "admin"]}]}).encode()


def _key_sets() -> Iterator[bytes]:
    curve = {
        "kty": "EC",
        "crv": "P-256",
        "kid": "1",
        "alg": "ES256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    }
    edwards = {"kty": "OKP", "crv": "Ed25519", "kid": "2", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    rsa = {"kty": "RSA", "kid": "3", "alg": "RS256", "use": "sig", "n": "AQAB" * 86, "e": "AQAB"}
    yield json.dumps({"keys": [curve, edwards]}).encode()
    yield json.dumps({"keys": [rsa]}).encode()


def _tickets() -> Iterator[bytes]:
    quotas = {"requests_per_s": 5.0}
    ticket = {"name": "a", "scopes": ["stream"], "quotas": quotas, "anonymous": False, "until": 1.5}
    yield json.dumps(ticket).encode()
    yield json.dumps(ticket | {"quotas": {}, "until": None}).encode()


def _read_ticket(data: bytes) -> None:
    _from_json(json.loads(data))


_FORM = (
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n'
    b"Content-Type: image/jpeg\r\n\r\n\xff\xd8data\r\n"
    b'--b\r\nContent-Disposition: form-data; name="classes"\r\n\r\nqr_code\r\n--b--\r\n'
)


def _forms() -> Iterator[bytes]:
    # The first byte is the size of the pieces in which the form arrives; with 0 it arrives in one piece.
    yield b"\x00" + _FORM
    yield b"\x01" + _FORM
    yield b"\x0b" + _FORM.replace(b"\r\n--b--", b"\r\n" + _FORM[:-9] + b"\r\n--b--")


def _read_form(data: bytes) -> None:
    size = max(1, data[0] if data[:1] and data[0] else len(data))
    pieces = iter([data[start : start + size] for start in range(1, len(data), size)])
    form = FormReader("b", Limits(image_bytes=1000, total_bytes=2000, max_images=3))

    async def read() -> bytes:
        return next(pieces, b"")

    asyncio.run(form.read(read))
    assert sum(map(len, form.images)) <= 2000
    assert len(form.images) <= 3


def _json_bodies() -> Iterator[bytes]:
    # The first byte is the size of the pieces in which the body arrives; with 0 it arrives in one piece.
    long = base64.b64encode(bytes(range(256)) * 8)
    yield b"\x00" + b'{"image": "/9j/4AAQ", "classes": ["bus", 3], "conf_threshold": 0.5, "collect": true}'
    yield (
        b"\x0b" + b'{"images": ["data:image/jpeg;base64,/9j/4AAQ", "https://a.example/b.jpg"], "image": null}'
    )
    yield b"\xfa" + b'{"image": "' + long.replace(b"/", b"\\/").replace(b"+", b"\\u002b") + b'\\n"}'


def _read_json_body(data: bytes) -> None:
    size = max(1, data[0] if data[:1] and data[0] else len(data))
    body = JsonBody(Limits(image_bytes=4000, total_bytes=6000, max_images=3))
    for start in range(1, len(data), size):
        body.feed(data[start : start + size])
    body.finish()
    assert 1 <= len(body.images) <= 3
    assert sum(len(image) for image in body.images if not isinstance(image, ImageUrl)) <= 6000


def _boundaries() -> Iterator[bytes]:
    yield b"multipart/form-data; boundary=----abc"
    yield b'multipart/form-data; charset=utf-8; boundary="a b c"'


TARGETS = (
    Target("key_file", parse_keys, (BadKeyFile,), _key_files),
    Target("key_set", lambda data: parse_key_set(data, _ALGORITHMS), (BadKeySet,), _key_sets),
    Target("ticket", _read_ticket, (KeyError, TypeError, ValueError, RecursionError), _tickets),
    Target("form", _read_form, (Problem,), _forms),
    Target("json_body", _read_json_body, (Problem,), _json_bodies),
    Target("boundary", lambda data: read_boundary(data.decode("latin-1")), (Problem,), _boundaries),
)
