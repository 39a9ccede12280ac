"""How a connection comes to its end: raised wherever the reason is found, carried out by the connection."""

from __future__ import annotations


class CloseConnection(Exception):
    """The connection is to be closed with this code; the reason is cut to 120 bytes."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason.encode()[:120].decode(errors="ignore")
