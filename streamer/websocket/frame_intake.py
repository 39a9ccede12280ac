"""Takes in control messages and text frames of a client: size and rate are judged before parsing."""

from __future__ import annotations

from typing import Any

from streamer.protocol.close_codes import CloseCode, CloseConnection
from streamer.protocol.large_frame import decode_large_frame
from streamer.protocol.wire import ProtocolError, decode_message
from streamer.websocket.rate_limit import (
    CONTROL_MAX_BYTES,
    CONTROL_MAX_VALUES,
    CONTROL_PER_S,
    TEXT_FRAMES_BURST,
    TEXT_FRAMES_PER_S,
    ControlRate,
    size_in_bytes,
)

_RATE_TEXT = f"more than {CONTROL_PER_S:g} control messages a second"


class TooFast(Exception):
    """The message came too soon after the others and is ignored; the client is told so."""

    def to_message(self) -> dict[str, Any]:
        """Return the ``error`` message that says so."""
        return {
            "type": "error",
            "code": "rate_limited",
            "message": str(self),
            "fatal": False,
            "retry_ms": 1000,
        }


class Intake:
    """One client's; ``now`` is monotonic seconds."""

    def __init__(self, now: float) -> None:
        self._control = ControlRate(now)
        self._frames = ControlRate(now, TEXT_FRAMES_PER_S, TEXT_FRAMES_BURST)

    def decode(self, data: str | bytes, now: float) -> dict[str, Any]:
        """Return the map of a message.

        Raises TooFast, ProtocolError for what is no message, CloseConnection for a message that is too large
        or a client that was told to send less and does not.
        """
        size_bytes = size_in_bytes(data)
        # Cheap, and may err: what turns out to be no frame is counted as a control message as well.
        may_be_frame = ('"frame"' in data) if isinstance(data, str) else (b"frame" in data)
        if size_bytes > CONTROL_MAX_BYTES and not may_be_frame:
            raise _too_large(size_bytes)
        if may_be_frame:
            self._take(self._frames, now, 0, f"more than {TEXT_FRAMES_PER_S:g} text frames a second")
        else:
            self.take(now, size_bytes)
        message = _decode(data, size_bytes)
        if may_be_frame and message["type"] != "frame":
            self.take(now, size_bytes)
        return message

    def take(self, now: float, size_bytes: int = 0) -> None:
        """Count a control message, or a frame that no stream takes. Raises TooFast or CloseConnection."""
        self._take(self._control, now, size_bytes, _RATE_TEXT)

    def _take(self, rate: ControlRate, now: float, size_bytes: int, text: str) -> None:
        if rate.take(now, size_bytes):
            return
        if rate.exhausted:
            raise CloseConnection(CloseCode.LIMITS, text)
        raise TooFast(text)


def _decode(data: str | bytes, size_bytes: int) -> dict[str, Any]:
    if size_bytes <= CONTROL_MAX_BYTES:
        return decode_message(data, most_values=CONTROL_MAX_VALUES)
    try:
        return decode_large_frame(data, most_bytes=CONTROL_MAX_BYTES, most_values=CONTROL_MAX_VALUES)
    except ProtocolError as error:
        if error.code != "too_large":
            raise
        raise _too_large(size_bytes) from error


def _too_large(size_bytes: int) -> CloseConnection:
    return CloseConnection(
        CloseCode.LIMITS, f"a control message has {size_bytes} bytes, at most {CONTROL_MAX_BYTES}"
    )
