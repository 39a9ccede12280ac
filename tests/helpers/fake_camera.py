"""Runs network cameras on this machine that answer over HTTP as a test wants it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Respond = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Camera:
    """Holds the port of a running camera server and the requests that it received."""

    port: int
    #: Headers of each request, in order.
    requests: list[dict[str, str]] = field(default_factory=list)
    busy: threading.Lock = field(default_factory=threading.Lock)

    def url(self, path: str = "/jpg", user: str = "") -> str:
        return f"http://{user}127.0.0.1:{self.port}{path}"


class Cameras:
    """Starts cameras, and stops all of them with :meth:`close`."""

    def __init__(self) -> None:
        self._running: list[ThreadingHTTPServer] = []

    def start(self, respond: Respond) -> Camera:
        """Start a camera that serves one client at a time, and refuses a second one after a minute.

        It waits because a client may send its next request before the thread that served the last one runs
        again.
        """

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found.requests.append({name.lower(): value for name, value in self.headers.items()})
                if not found.busy.acquire(timeout=60):
                    self.send_error(503)
                    return
                try:
                    respond(self)
                except OSError:
                    return
                finally:
                    found.busy.release()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        found = Camera(server.server_port)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self._running.append(server)
        return found

    def close(self) -> None:
        """Stop all cameras."""
        for server in self._running:
            server.shutdown()
            server.server_close()


def answer(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    fields = {"Content-Type": "image/jpeg", "Content-Length": str(len(body))}
    for name, value in (fields | {k.replace("_", "-"): v for k, v in headers.items()}).items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)
