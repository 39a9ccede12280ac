"""The HEALTHCHECK of the image: exits with 0 where ``/health`` says 200, else with 1."""

from __future__ import annotations

import http.client
import os
import sys

_TIMEOUT_S = 3.0


def main() -> int:
    """Ask the service on ``PORT`` of this machine; returns 0 when it can serve, else 1 and its answer."""
    # Not by way of the settings: this runs every few seconds, and loading them costs more than the question.
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ.get("PORT") or 8000), _TIMEOUT_S)
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        sys.stdout.write(answer.read().decode())
    except OSError as error:
        sys.stdout.write(f"nobody answers on port {connection.port}: {error}")
        return 1
    finally:
        connection.close()
    return 0 if answer.status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
