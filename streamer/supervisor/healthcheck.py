"""Runs as the HEALTHCHECK of the container image: exits with 0 if ``/health`` answers 200, else with 1."""

from __future__ import annotations

import http.client
import os
import sys

_TIMEOUT_S = 3.0


def main() -> int:
    """Ask the local service on ``PORT`` and print its answer; return 0 if it can serve, else 1."""
    # PORT is read from the environment directly. This runs every few seconds, and loading the settings would
    # cost more than the request.
    port = int(os.environ.get("PORT") or 8000)
    status, text = 0, ""
    for host in ("127.0.0.1", "::1"):  # HOST may be an address of either family
        try:
            status, text = _ask(host, port)
        except OSError as error:
            text = text or f"no answer on port {port}: {error}"
        else:
            break
    sys.stdout.write(text)
    return 0 if status == 200 else 1


def _ask(host: str, port: int) -> tuple[int, str]:
    """Return status and body of the answer. Raises OSError if the service does not answer."""
    connection = http.client.HTTPConnection(host, port, _TIMEOUT_S)
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
