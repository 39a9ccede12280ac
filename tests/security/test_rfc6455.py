"""S8: raw bytes test what RFC 6455 requires of a server; known deviations have tests of their own."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

import pytest

from tests.helpers.model_factory import null_model
from tests.helpers.raw_websocket import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    RawSocket,
    close_frame,
    frame,
    upgrade,
)
from tests.helpers.service import PATIENT, Service

HELLO = json.dumps({"type": "hello", "client": {"name": "Zoë 🎥"}}, ensure_ascii=False).encode()
MESSAGE_MAX = 8192


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    model = null_model(tmp_path_factory.mktemp("models") / "null.onnx")
    settings = PATIENT | {"MODEL_V1_PATH": str(model), "SAMPLING": "False"}
    with Service(settings | {"STREAM_MAX_MESSAGE_BYTES": str(MESSAGE_MAX)}) as running:
        yield running


def split(payload: bytes, *places: int, opcode: int = TEXT) -> list[bytes]:
    """Return the frames of a message that is cut at these places."""
    edges = [0, *places, len(payload)]
    parts = [payload[a:b] for a, b in itertools.pairwise(edges)]
    last = len(parts) - 1
    return [frame(opcode if i == 0 else 0, part, fin=i == last) for i, part in enumerate(parts)]


PROTOCOL_ERRORS: dict[str, list[bytes]] = {
    **{f"reserved bit {bit} in text": [frame(TEXT, HELLO, reserved=bit)] for bit in (4, 2, 1, 7)},
    **{f"reserved bit {bit} in a ping": [frame(PING, b"x", reserved=bit)] for bit in (4, 2, 1)},
    **{f"opcode {opcode}": [frame(opcode, b"x")] for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "a ping of 126 bytes": [frame(PING, bytes(126))],
    "a pong of 126 bytes": [frame(PONG, bytes(126))],
    "a close of 126 bytes": [frame(CLOSE, b"\x03\xe8" + b"x" * 124)],
    "a ping in parts": [frame(PING, b"x", fin=False)],
    "a close in parts": [frame(CLOSE, b"\x03\xe8", fin=False)],
    "a continuation of nothing": [frame(0, b"x")],
    "a continuation after a whole message": [frame(TEXT, HELLO), frame(0, b"x")],
    "text within a message": [frame(TEXT, b"a", fin=False), frame(TEXT, b"b")],
    "binary within a message": [frame(TEXT, b"a", fin=False), frame(BINARY, b"b")],
    "a close of one byte": [frame(CLOSE, b"\x03")],
    **{f"close code {code}": [close_frame(code)] for code in (0, 999, 1004, 1005, 1015, 1016, 2999)},
    "compressed without agreement": [frame(TEXT, b"\xaa\x56\x4a\x01\x00", reserved=4)],
}
NOT_TEXT = {
    "a lone byte": b"\xff",
    "an overlong slash": b"\xc0\xaf",
    "half of a surrogate pair": b"\xed\xa0\x80",
    "beyond the last code point": b"\xf4\x90\x80\x80",
    "a character cut off": b"ab\xe2\x82",
    "a continuation byte first": b"\x80",
}
#: Close codes that a server may send for each kind of error, by RFC 6455 sections 5.5.1 and 7.4.1.
MALFORMED, BAD_TEXT, TOO_BIG = {1002}, {1007}, {1009}


@pytest.mark.parametrize("name", PROTOCOL_ERRORS)
def test_a_breach_of_the_protocol_closes_with_1002(service: Service, name: str) -> None:
    with RawSocket(service.port) as client:
        client.upgraded()
        client.send(b"".join(PROTOCOL_ERRORS[name]))
        assert client.close_code() in MALFORMED
        assert client.receive() is None, "the connection stays open"


@pytest.mark.parametrize("name", NOT_TEXT)
def test_what_is_no_utf_8_closes_with_1007(service: Service, name: str) -> None:
    for messages in ([frame(TEXT, NOT_TEXT[name])], split(b"x" + NOT_TEXT[name], 1)):
        with RawSocket(service.port) as client:
            client.upgraded()
            client.send(b"".join(messages))
            assert client.close_code() in BAD_TEXT


def test_a_reason_that_is_no_utf_8_is_an_error(service: Service) -> None:
    with RawSocket(service.port) as client:
        client.upgraded()
        client.send(close_frame(1000, b"\xff"))
        assert client.close_code() in MALFORMED | BAD_TEXT


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 2**63 - 1, 2**40, 2**32, 1 << 20])
def test_a_length_beyond_the_limit_is_refused_before_it_comes(service: Service, length: int) -> None:
    with RawSocket(service.port) as client:
        client.upgraded()
        client.send(frame(BINARY, b"x" * 100, length=length, form=64))
        assert client.close_code() in MALFORMED | TOO_BIG | {4429}


@pytest.mark.parametrize("parts", [1, 40])
def test_a_message_beyond_the_limit_is_refused_whole_or_in_parts(service: Service, parts: int) -> None:
    with RawSocket(service.port) as client:
        client.upgraded()
        client.send(frame(TEXT, HELLO))
        assert client.until(TEXT) is not None
        size = MESSAGE_MAX + 1
        places = range(size // parts, size, size // parts) if parts > 1 else ()
        client.send(b"".join(split(bytes(size), *places, opcode=BINARY)))
        assert client.close_code() in TOO_BIG


@pytest.mark.parametrize("code", [None, 1000, 1001, 1003, 1007, 1011, 3000, 4999])
def test_a_close_is_answered(service: Service, code: int | None) -> None:
    with RawSocket(service.port) as client:
        client.upgraded()
        client.send(close_frame(code, b"done" if code else b""))
        assert client.close_code() in {code, 1000, 1005}
        assert client.receive() is None


@pytest.mark.parametrize("payload", [b"", b"x", bytes(range(125))], ids=["empty", "one", "125"])
def test_a_ping_is_answered_with_its_payload(service: Service, payload: bytes) -> None:
    with RawSocket(service.port) as client:
        client.upgraded()
        client.send(frame(PONG, b"nobody asked") + frame(PING, payload))
        assert client.until(PONG) == payload


def test_a_message_comes_whole_out_of_any_parts(service: Service) -> None:
    for place in range(len(HELLO) + 1):
        with RawSocket(service.port) as client:
            client.upgraded()
            first, second = split(HELLO, place)
            client.send(first + frame(PING, b"between") + second)
            assert client.until(PONG) == b"between"
            answer = client.until(TEXT)
            assert answer is not None
            assert json.loads(answer)["type"] == "welcome", place


def test_a_message_comes_whole_off_a_socket_that_gives_single_bytes(service: Service) -> None:
    with RawSocket(service.port) as client:
        client.upgraded()
        for byte in frame(PING, b"slow") + frame(TEXT, HELLO):
            client.send(bytes([byte]))
        assert client.until(PONG) == b"slow"
        assert client.until(TEXT) is not None


def test_many_empty_parts_are_one_message(service: Service) -> None:
    with RawSocket(service.port) as client:
        client.upgraded()
        client.send(frame(TEXT, b"", fin=False) + frame(0, b"", fin=False) * 100 + frame(0, HELLO))
        assert client.until(TEXT) is not None


@pytest.mark.parametrize("form", [16, 64])
def test_a_length_written_longer_than_needed_is_read(service: Service, form: int) -> None:
    with RawSocket(service.port) as client:
        client.upgraded()
        client.send(frame(PING, b"x", form=form))
        # The client breaks section 5.2. The server may read the frame, which is harmless, or refuse it.
        received = client.receive()
        assert received is not None
        assert received[0] in (PONG, CLOSE)


def test_what_follows_the_request_at_once_is_read_after_the_upgrade(service: Service) -> None:
    with RawSocket(service.port) as client:
        client.send(upgrade() + frame(PING, b"early") + frame(TEXT, HELLO))
        assert client.answer()[0] == 101
        assert client.until(PONG) == b"early"
        assert client.until(TEXT) is not None


def test_compression_that_is_offered_is_not_taken(service: Service) -> None:
    with RawSocket(service.port) as client:
        client.send(upgrade(Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits"))
        status, headers, _ = client.answer()
        assert status == 101
        assert "sec-websocket-extensions" not in headers
        client.send(frame(TEXT, b"\xaa\x56\x4a\x01\x00", reserved=4))
        assert client.close_code() in MALFORMED


def test_the_answer_to_the_upgrade_is_that_of_the_rfc(service: Service) -> None:
    with RawSocket(service.port) as client:
        headers = client.upgraded()
    assert headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert headers["upgrade"].lower() == "websocket"
    assert headers["connection"].lower() == "upgrade"


def test_known_deviation_frames_without_a_mask_are_read(service: Service) -> None:
    # Section 5.1 says to refuse them, but aiohttp reads them. Masks protect caches between client and server,
    # not the server.
    with RawSocket(service.port) as client:
        client.upgraded()
        client.send(frame(PING, b"bare", masked=False))
        assert client.until(PONG) == b"bare"


@pytest.mark.parametrize("code", [1006, 5000, 65535])
def test_known_deviation_some_codes_that_nobody_may_send_are_taken_for_a_close(
    service: Service, code: int
) -> None:
    # Section 7.4.1 requires 1002 as the answer to 1006, and 7.4.2 defines no code above 4999. aiohttp just
    # closes.
    with RawSocket(service.port) as client:
        client.upgraded()
        client.send(close_frame(code))
        assert client.close_code() in {1000, 1002}
        assert client.receive() is None


def test_known_deviation_drafts_with_the_same_frames_are_spoken(service: Service) -> None:
    with RawSocket(service.port) as client:
        client.send(upgrade(Sec_WebSocket_Version="8"))
        assert client.answer()[0] in (101, 400, 426)


BAD_UPGRADES: dict[str, tuple[bytes, set[int]]] = {
    "no key": (upgrade(Sec_WebSocket_Key=None), {400}),
    "a short key": (upgrade(Sec_WebSocket_Key="YWJj"), {400}),
    "a key that is no base64": (upgrade(Sec_WebSocket_Key="!" * 24), {400}),
    "no version": (upgrade(Sec_WebSocket_Version=None), {400, 426}),
    "version 6": (upgrade(Sec_WebSocket_Version="6"), {400, 426}),
    "another protocol": (upgrade(Upgrade="h2c"), {400, 426}),
    "no upgrade": (upgrade(Upgrade=None), {400, 426}),
    "no connection header": (upgrade(Connection=None), {400, 426}),
    "POST": (upgrade(method="POST"), {405}),
    "HTTP/1.0": (upgrade(http="1.0"), {400, 426, 505}),
    "a body": (upgrade(Content_Length="5") + b"hello", {400}),
    "a body that never comes": (upgrade(Content_Length="5"), {400}),
    "a body in chunks": (upgrade(Transfer_Encoding="chunked") + b"5\r\nhello\r\n0\r\n\r\n", {400}),
    "a body that is a request": (
        upgrade(Content_Length="40") + b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
        {400},
    ),
    "both lengths": (upgrade(Content_Length="5", Transfer_Encoding="chunked") + b"0\r\n\r\n", {400}),
    "a length below 0": (upgrade(Content_Length="-1"), {400}),
}


@pytest.mark.parametrize("name", BAD_UPGRADES)
def test_an_upgrade_that_is_none_is_refused_and_the_connection_closed(service: Service, name: str) -> None:
    request, allowed = BAD_UPGRADES[name]
    with RawSocket(service.port) as client:
        client.send(request)
        status, headers, _ = client.answer()
        assert status in allowed
        assert headers["content-type"].startswith("application/problem+json")
        if b"Content-Length" in request or b"Transfer-Encoding" in request:
            # The server must not read the body as another request. If it closes the connection, the status is
            # 0; otherwise the next answer is that to the next request.
            if name != "a body that never comes":
                client.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            status, _, body = client.answer()
            assert status in (0, 400) or "alive" in json.loads(body)
            assert client.answer()[0] == 0


def test_the_log_has_no_fault_of_ours(service: Service) -> None:
    assert "Traceback" not in service.log
    assert service.get("/livez")[0] == 200
