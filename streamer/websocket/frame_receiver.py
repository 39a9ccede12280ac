"""Decodes the messages of one WebSocket, and gives its frames to their streams or refuses them.

What control messages do is in `streams.session_control`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from streamer.accounting.ledger import FrameCounters, Ledger
from streamer.protocol import server_messages
from streamer.protocol.client_messages import TextFrame, parse_message
from streamer.protocol.close_codes import CloseCode, CloseConnection
from streamer.protocol.server_messages import Error, ServerMessage
from streamer.protocol.wire import (
    MAX_SEQ,
    MAX_STREAMS,
    DropReason,
    Frame,
    ProtocolError,
    decode_large_frame,
    decode_message,
    unpack_frame,
)
from streamer.scheduling.dispatcher import Dispatcher
from streamer.streams.flow_control import WindowExceeded
from streamer.streams.session_control import (
    CONTROL_MAX_BYTES,
    CONTROL_MAX_VALUES,
    ControlRate,
    RateLimited,
    SessionControl,
    size_in_bytes,
)
from streamer.streams.stream_handle import StreamHandle

#: Rate and burst allowed for frames in text form, which are for debugging. A camera does not exceed them.
TEXT_FRAMES_PER_S = 60.0
TEXT_FRAMES_BURST = 120


class MessageDecoder:
    """Decodes the messages of one client; ``control_rate`` limits the rate of its control messages."""

    def __init__(self, control_rate: ControlRate, now: float) -> None:
        self._control_rate = control_rate
        #: Limits frames in text form; None until the first one, because they are for debugging.
        self._frame_rate: ControlRate | None = None
        self._began = now

    def decode(self, data: str | bytes, now: float) -> dict[str, Any]:
        """Return the map of a message.

        Raises CloseConnection for a message that is too large, RateLimited or TooManyMessages for one that
        came too soon, and ProtocolError for data that is not a message.
        """
        size_bytes = size_in_bytes(data)
        # This check is cheap and may be wrong. A message that is not a frame after all is charged again.
        may_be_frame = ('"frame"' in data) if isinstance(data, str) else (b"frame" in data)
        if size_bytes > CONTROL_MAX_BYTES and not may_be_frame:
            raise _too_large(size_bytes)
        if may_be_frame:
            if self._frame_rate is None:
                self._frame_rate = ControlRate(
                    self._began, TEXT_FRAMES_PER_S, TEXT_FRAMES_BURST, "text frames"
                )
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


class FrameSender(Protocol):
    """The connection that the frames come from, as far as it is used here."""

    version: str
    streams: dict[int, StreamHandle]
    counters: FrameCounters

    def send(self, message: ServerMessage) -> None:
        """Queue one message without waiting."""

    def send_all(self, messages: list[ServerMessage]) -> None:
        """Queue messages that belong to an outcome, and account it."""


class FrameReceiver:
    """Takes the frames of one connection; ``now`` is monotonic seconds, when the message was read."""

    def __init__(self, connection: FrameSender, control: SessionControl, dispatcher: Dispatcher) -> None:
        self._connection = connection
        self._control = control
        self._dispatcher = dispatcher
        self._version = connection.version
        self._streams: Mapping[int, StreamHandle] = connection.streams
        self._counters = connection.counters
        #: Frames that no stream took. They are counted as received and failed, so that the ledger balances.
        self._refused = Ledger()

    def receive(self, data: bytes, now: float) -> None:
        """Take a frame in binary form. Raises CloseConnection or TooManyMessages."""
        try:
            frame = unpack_frame(data)
        except ProtocolError as error:
            self._refuse(server_messages.protocol_error(error), now)
            return
        self._accept(frame, now)

    def receive_text(self, message: dict[str, Any], now: float) -> None:
        """Take a frame in text form, from its decoded map. Raises CloseConnection or TooManyMessages."""
        try:
            parsed = parse_message(message)
            frame = parsed.to_frame() if isinstance(parsed, TextFrame) else None
        except ProtocolError as error:
            self._refuse(_text_frame_error(error, message), now)
            return
        if frame is not None:
            self._accept(frame, now)
            self._control.report_unknown_fields(parsed)

    def account(self) -> None:
        """Bring the metrics up to date with the frames that no stream took."""
        self._counters.account(self._refused)

    def _accept(self, frame: Frame, now: float) -> None:
        handle = self._streams.get(frame.stream)
        if handle is None:
            self._refuse(
                server_messages.error(
                    "unknown_stream",
                    unknown_stream(frame.stream, self._streams),
                    field="stream",
                    stream=frame.stream,
                    seq=frame.seq,
                ),
                now,
            )
            return
        connection, flow = self._connection, handle.flow
        quota = handle.client.image_bytes
        if quota is not None and frame.seq > flow.last_seq and not quota.take(now, len(frame.payload)):
            text = "over this client's quota of bytes"
            connection.send_all(flow.discard(frame.seq, DropReason.RATE, text))
            return
        try:
            messages = flow.receive(frame, now)
        except WindowExceeded as error:
            self._counters.account(flow.ledger)
            raise CloseConnection(CloseCode.LIMITS, str(error)) from error
        self._counters.account(flow.ledger)
        if messages:
            connection.send_all(messages)
        if flow.pending:
            self._dispatcher.offer(self._version, handle)
        if flow.has_unsent_drops:
            handle.send_drops_soon()

    def _refuse(self, answer: Error, now: float) -> None:
        """Send an error for a frame that no stream takes. Such frames share the rate of control messages."""
        self._refused.received += 1
        self._refused.failed += 1
        self.account()
        try:
            self._control.rate.charge(now)
        except RateLimited as limited:
            answer = server_messages.rate_limited(str(limited))
        self._connection.send(answer)


class MessageReceiver:
    """Takes the messages of one connection that are not frames in binary form.

    ``began`` is when the connection was opened, in monotonic seconds.
    """

    def __init__(self, connection: FrameSender, control: SessionControl, began: float) -> None:
        self._connection = connection
        self._control = control
        self._decoder = MessageDecoder(control.rate, began)

    def receive(self, data: str | bytes, frames: FrameReceiver, now: float) -> None:
        """Carry out a control message, or let ``frames`` take a frame in text form.

        Raises CloseConnection or TooManyMessages.
        """
        try:
            message = self._decoder.decode(data, now)
            if message["type"] == "frame":
                frames.receive_text(message, now)
            else:
                self._control.handle(message, now)
        except RateLimited as limited:
            self._connection.send(server_messages.rate_limited(str(limited)))
        except ProtocolError as error:
            self._connection.send(server_messages.protocol_error(error))


def unknown_stream(number: int, known: Mapping[int, StreamHandle]) -> str:
    """Return the text of the error for a stream that `hello` did not announce."""
    return f"field `stream` is {number}; hello announced {', '.join(map(str, known))}"


def _text_frame_error(error: ProtocolError, message: dict[str, Any]) -> Error:
    """Return the error for a malformed text frame, with its `seq` and `stream` if these are valid."""
    answer = server_messages.protocol_error(error)
    seq, stream = message.get("seq"), message.get("stream")
    if isinstance(seq, int) and 0 <= seq <= MAX_SEQ:
        answer["seq"] = int(seq)
    if isinstance(stream, int) and 0 <= stream < MAX_STREAMS:
        answer["stream"] = int(stream)
    return answer
