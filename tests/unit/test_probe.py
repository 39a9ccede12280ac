"""Tests the HEALTHCHECK of the container image: 0 if the service can serve, else 1 with the reason."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from streamer.supervisor import healthcheck as probe


class Answer(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        assert self.path == "/health"
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(b'{"status": "told"}')

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HTTPServer]:
    monkeypatch.setattr(probe, "_TIMEOUT_S", 60.0)
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("PORT", str(server.server_port))
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_its_exit_code_is_whether_the_service_can_serve(
    server: HTTPServer,
    status: int,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Answer, "status", status)
    assert probe.main() == code
    assert "told" in capsys.readouterr().out


def test_a_service_that_listens_on_ipv6_alone_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Server(HTTPServer):
        address_family = socket.AF_INET6

    with Server(("::1", 0), Answer) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        monkeypatch.setenv("PORT", str(server.server_port))
        assert probe.main() == 0
        thread.join()
    assert "told" in capsys.readouterr().out


def test_nobody_there_is_said_with_the_port(server: HTTPServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.server_close()
    assert probe.main() == 1
    assert f"port {server.server_port}" in capsys.readouterr().out
