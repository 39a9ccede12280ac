"""Decodes the control messages and text frames of a WebSocket; size and rate are checked before parsing."""

from __future__ import annotations

from typing import Any

from streamer.protocol.close_codes import CloseCode, CloseConnection
from streamer.protocol.large_frame import decode_large_frame
from streamer.protocol.wire import ProtocolError, decode_message
from streamer.streams.control_rate import (
    CONTROL_MAX_BYTES,
    CONTROL_MAX_VALUES,
    ControlRate,
    size_in_bytes,
)

#: Frames in text form, which are for debugging: a burst and a rate that a camera does not exceed.
TEXT_FRAMES_PER_S = 60.0
TEXT_FRAMES_BURST = 120


class MessageIntake:
    """Decodes the messages of one client; ``control_rate`` is the rate of its control messages."""

    def __init__(self, control_rate: ControlRate, now: float) -> None:
        self._control_rate = control_rate
        self._frame_rate = ControlRate(now, TEXT_FRAMES_PER_S, TEXT_FRAMES_BURST, "text frames")

    def decode(self, data: str | bytes, now: float) -> dict[str, Any]:
        """Return the map of a message.

        Raises CloseConnection for a message that is too large, RateLimited or TooManyMessages for one that
        came too soon, and ProtocolError for what is no message.
        """
        size_bytes = size_in_bytes(data)
        # This check is cheap and may be wrong: a message that is no frame after all is charged again below.
        may_be_frame = ('"frame"' in data) if isinstance(data, str) else (b"frame" in data)
        if size_bytes > CONTROL_MAX_BYTES and not may_be_frame:
            raise _too_large(size_bytes)
        if may_be_frame:
            self._frame_rate.charge(now)
        else:
            self._control_rate.charge(now, size_bytes)
        message = _decode(data, size_bytes)
        if may_be_frame and message["type"] != "frame":
            self._control_rate.charge(now, size_bytes)
        return message


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
