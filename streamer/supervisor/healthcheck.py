"""The HEALTHCHECK of the image: exits with 0 if ``/health`` answers 200, else with 1."""

from __future__ import annotations

import http.client
import os
import sys

_TIMEOUT_S = 3.0


def main() -> int:
    """Ask the local service on ``PORT`` and print its answer; returns 0 when it can serve, else 1."""
    # Reads PORT by itself: this runs every few seconds, and loading the settings costs more than the request.
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ.get("PORT") or 8000), _TIMEOUT_S)
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        sys.stdout.write(answer.read().decode())
    except OSError as error:
        sys.stdout.write(f"no answer on port {connection.port}: {error}")
        return 1
    finally:
        connection.close()
    return 0 if answer.status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
