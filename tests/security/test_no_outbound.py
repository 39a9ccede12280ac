"""S14: the service treats addresses in client input as plain text and connects to none of them."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from tests.helpers.model_factory import null_model
from tests.helpers.ports import free_port
from tests.helpers.raw_websocket import TEXT, RawSocket, frame
from tests.helpers.service import PATIENT, Service
from tests.helpers.waiting import wait_for


class Trap:
    """Listens for TCP connections and UDP datagrams on one port, and counts them."""

    def __init__(self) -> None:
        #: One entry for each connection and each datagram. Two threads append to it.
        self._seen: list[None] = []
        self.port = free_port(socket.SOCK_DGRAM)
        self._tcp = socket.create_server(("127.0.0.1", self.port))
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("127.0.0.1", self.port))
        for wait in (self._accept, lambda: self._udp.recvfrom(2048)):
            threading.Thread(target=self._count, args=(wait,), daemon=True).start()

    @property
    def caught(self) -> int:
        """Number of connections and datagrams so far."""
        return len(self._seen)

    def _accept(self) -> None:
        self._tcp.accept()[0].close()

    def _count(self, wait: Callable[[], object]) -> None:
        while True:
            try:
                wait()
            except OSError:
                return
            self._seen.append(None)

    def close(self) -> None:
        for each in (self._tcp, self._udp):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@pytest.fixture
def trap() -> Iterator[Trap]:
    found = Trap()
    yield found
    found.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    model = null_model(tmp_path_factory.mktemp("models") / "null.onnx")
    with Service(PATIENT | {"MODEL_V1_PATH": str(model)}) as running:
        yield running


def addresses(port: int) -> list[str]:
    host = f"127.0.0.1:{port}"
    return [
        f"http://{host}/x",
        f"//{host}/x",
        f"file://{host}/etc/passwd",
        f"stun:{host}",
        f"gopher://{host}/",
        host,
    ]


SDP = (
    "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns={url}\r\nu={url}\r\nt=0 0\r\nc=IN IP4 127.0.0.1\r\n"
    "a=fingerprint:sha-256 "
    + ":".join(["AB"] * 32)
    + "\r\na=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuv\r\n"
    "m=video {port} UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 127.0.0.1\r\na=mid:0\r\na=sendonly\r\na=rtcp-mux\r\n"
    "a=rtcp:{port} IN IP4 127.0.0.1\r\na=setup:actpass\r\na=rtpmap:96 VP8/90000\r\n"
    "a=candidate:1 1 udp 1 127.0.0.1 {port} typ host\r\n"
    "a=candidate:2 1 tcp 1 127.0.0.1 {port} typ host tcptype passive\r\n"
)


def requests(service: Service, url: str, port: int) -> Iterator[urllib.request.Request]:
    """Yield requests with the address in each place that a client may fill."""
    base, quoted = service.http_url, urllib.parse.quote(url, safe="")
    plain = json.dumps(
        {"url": url, "image": url, "rows": [{"stream": url}], "groups": {url: {"rows": []}}}
    ).encode()
    offer = SDP.format(url=url, port=port)
    streams = [{"id": 0, "name": url}]
    wrapped = json.dumps({"type": "offer", "sdp": offer, "params": {"callback": url}, "streams": streams})
    bodies: list[tuple[str, bytes, str]] = [
        ("/v1/predict", url.encode(), "image/jpeg"),
        ("/v1/predict", plain, "application/json"),
        ("/v1/predict", f"file={quoted}".encode(), "application/x-www-form-urlencoded"),
        (f"/v1/predict?name={quoted}&url={quoted}", url.encode(), "image/png"),
        ("/reference/update", plain, "application/json"),
        ("/v1/webrtc", wrapped.encode(), "application/json"),
        ("/v1/whip", offer.encode(), "application/sdp"),
    ]
    named = {
        "X-Forwarded-Host": url,
        "Referer": url,
        "X-Callback": url,
        "X-Replica": url,
        "Forwarded": f"for={url}",
    }
    for path, body, kind in bodies:
        headers = named | {"Content-Type": kind}
        yield urllib.request.Request(base + path, data=body, headers=headers)  # noqa: S310 - loopback
    for path in (
        f"/v1/webrtc/{quoted}",
        f"/v1/whip/{quoted}/results",
        f"/drift/status?stream={quoted}",
        f"/{quoted}",
    ):
        yield urllib.request.Request(base + path, headers=named)  # noqa: S310 - loopback


def test_no_address_that_a_client_writes_is_connected_to(service: Service, trap: Trap) -> None:
    for url in addresses(trap.port):
        for request in requests(service, url, trap.port):
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - loopback
                    answer.read(1000)
            except urllib.error.HTTPError as error:
                with error:
                    assert error.code < 500 or error.code == 503, (request.full_url, error.code)
        with RawSocket(service.port) as client:
            client.upgraded()
            hello = {
                "type": "hello",
                "client": {"name": url},
                "streams": [{"id": 0, "name": url}],
                "callback": url,
            }
            hello["resume"] = {"session": url[:64]}
            client.send(frame(TEXT, json.dumps(hello).encode()))
            client.until(TEXT)
        with RawSocket(service.port) as client:
            client.send(f"GET {url} HTTP/1.1\r\nHost: {url}\r\n\r\n".encode())
            client.answer()
    assert trap.caught == 0


def test_the_trap_catches(trap: Trap) -> None:
    socket.create_connection(("127.0.0.1", trap.port)).close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", ("127.0.0.1", trap.port))
    wait_for(lambda: trap.caught == 2, "both are caught")
