"""Defines the WebSocket close codes of ``detect.v1``, and the exception that carries one. Pure."""

from __future__ import annotations

from enum import IntEnum

#: Largest number of bytes of a close reason; RFC 6455 section 5.5 allows 123.
_REASON_BYTES = 120


class CloseCode(IntEnum):
    """Lists the close codes of ``detect.v1``; this server does not send 4403, 4404, 4410 and 4422."""

    DONE = 1000
    SERVER_FAULT = 1011
    RESTART = 1012
    OVERLOADED = 1013
    MALFORMED = 4400
    UNAUTHORIZED = 4401
    FORBIDDEN = 4403
    NO_SUCH_MODEL = 4404
    UNSUPPORTED = 4406
    HELLO_TIMEOUT = 4408
    TAKEN_OVER = 4409
    EXPIRED = 4410
    CONFIGURATION = 4422
    LIMITS = 4429
    IDLE = 4440
    SLOW_CONSUMER = 4441


#: Codes after which a client must not reconnect, because the server would close the new connection likewise.
FINAL_CLOSE_CODES = frozenset(
    {
        CloseCode.MALFORMED,
        CloseCode.FORBIDDEN,
        CloseCode.NO_SUCH_MODEL,
        CloseCode.UNSUPPORTED,
        CloseCode.TAKEN_OVER,
        CloseCode.CONFIGURATION,
    }
)


class CloseConnection(Exception):
    """Raised by the code that finds a reason to close a connection; the connection catches it and closes."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        #: The reason for the close frame, cut to the length that fits into it.
        self.reason = reason.encode()[:_REASON_BYTES].decode(errors="ignore")


def reconnect_delay_ms(window_s: float, index: int, count: int) -> int:
    """Return the milliseconds after which client ``index`` of ``count`` is asked to reconnect.

    The clients of a server that shuts down are spread over ``window_s``, so that they do not all reach the
    next server at once.
    """
    return int(1000 * window_s * index / max(1, count))
