"""How a connection comes to its end: raised wherever the reason is found, carried out by the connection."""

from __future__ import annotations


class CloseConnection(Exception):
    """The connection is to be closed with this code; the reason is cut to 120 bytes."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason.encode()[:120].decode(errors="ignore")


def return_ms(window_s: float, index: int, count: int) -> int:
    """Return when the client of that index, of ``count``, is asked to come back: spread over the window.

    The next server is not stormed then. Milliseconds.
    """
    return int(1000 * window_s * index / max(1, count))
