"""Polls `/livez` continuously in the background and records the slowest answer."""

from __future__ import annotations

import http.client
import threading
import time
from types import TracebackType


class LivezProbe:
    """Sends requests over one connection in its own thread; waits ``every_s`` after each answer."""

    def __init__(self, port: int, *, every_s: float = 0.01) -> None:
        self._port = port
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="livez-probe")
        self.slowest_s = 0.0
        self.answers = 0
        self.failures: list[str] = []

    def __enter__(self) -> LivezProbe:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        while not self._stop.wait(self._every_s):
            begun = time.monotonic()
            try:
                connection.request("GET", "/livez")
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    self.failures.append(f"status {answer.status}")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
            self.slowest_s = max(self.slowest_s, time.monotonic() - begun)
            self.answers += 1
        connection.close()
