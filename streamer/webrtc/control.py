"""Control messages of a client whose video comes over WebRTC: checked, limited, obeyed."""

from __future__ import annotations

import time
from typing import Any, Protocol

from streamer.protocol.client_messages import (
    Bye,
    Configure,
    Message,
    Pause,
    Ping,
    Report,
    Resume,
    parse_message,
)
from streamer.protocol.wire import ProtocolError, decode_message
from streamer.streams.session import Session
from streamer.streams.stream_handle import LiveStream
from streamer.websocket.handshake import error_message
from streamer.websocket.rate_limit import (
    CONTROL_MAX_BYTES,
    CONTROL_MAX_VALUES,
    CONTROL_PER_S,
    ControlRate,
    size_in_bytes,
)

#: Unknown fields reported in one session.
_MAX_TOLD_UNKNOWN = 50


class TooManyMessages(Exception):
    """The client was told to send less, and does not."""


class Controlled(Protocol):
    """What control messages act on."""

    session: Session
    live: LiveStream

    def send_all(self, messages: list[dict[str, Any]]) -> None:
        """Queue messages; never waits."""

    def say_bye(self) -> None:
        """The client leaves."""


class Control:
    """Obeys what arrives on the control channel, or on the WebSocket of whoever reads the results."""

    def __init__(self, target: Controlled) -> None:
        self._target = target
        self._rate = ControlRate(time.monotonic())
        self._told_unknown: set[tuple[str, str]] = set()

    def received(self, data: str | bytes) -> None:
        """Take in one message. Raises TooManyMessages."""
        now = time.monotonic()
        size_bytes = size_in_bytes(data)
        if not self._rate.take(now, min(size_bytes, CONTROL_MAX_BYTES)):
            text = f"more than {CONTROL_PER_S:g} control messages a second"
            if self._rate.exhausted:
                raise TooManyMessages(text)
            self._send(
                {"type": "error", "code": "rate_limited", "message": text, "fatal": False, "retry_ms": 1000}
            )
            return
        try:
            self._obey(_parse(data, size_bytes), now)
        except ProtocolError as error:
            self._send(error_message(error))

    def _obey(self, message: Message, now: float) -> None:
        target = self._target
        if isinstance(message, Configure):
            target.session.configure(message.params)
            target.session.cfg = message.cfg
            self._send({"type": "configured", "cfg": message.cfg, "params": target.session.describe_params()})
        elif isinstance(message, Ping):
            self._send(
                {
                    "type": "pong",
                    "t0": message.t0,
                    "t1": int(now * 1e6),
                    "t2": int(time.monotonic() * 1e6),
                }
            )
        elif isinstance(message, Pause | Resume):
            if message.stream != 0:
                raise _wrong_stream(message.stream)
            stream = target.live.stream
            target.send_all(stream.pause() if isinstance(message, Pause) else stream.resume())
        elif isinstance(message, Report):
            if message.stream != 0:
                raise _wrong_stream(message.stream)
            self._send(target.live.report(message.note))
        elif isinstance(message, Bye):
            target.say_bye()
        else:
            raise ProtocolError(
                f"field `type` is {message.type}, which is not sent here: the offer was the hello, and "
                "frames come as video",
                code="unexpected",
                field="type",
            )
        self._report_unknown(message)

    def _report_unknown(self, message: Message) -> None:
        """Unknown fields are ignored, but not in silence: most of them are misspelt. Each is told once."""
        for name in message.unknown_fields()[:5]:
            told = (message.type, name)
            if told in self._told_unknown or len(self._told_unknown) >= _MAX_TOLD_UNKNOWN:
                continue
            self._told_unknown.add(told)
            self._send(
                {
                    "type": "error",
                    "code": "unknown_field",
                    "message": f"field `{name}` of {message.type} is not known and was ignored",
                    "field": name,
                    "fatal": False,
                }
            )

    def _send(self, message: dict[str, Any]) -> None:
        self._target.send_all([message])


def _wrong_stream(number: int) -> ProtocolError:
    return ProtocolError(f"field `stream` is {number}; a video is stream 0", code="invalid", field="stream")


def _parse(data: str | bytes, size_bytes: int) -> Message:
    """Return the message. Raises ProtocolError."""
    if size_bytes > CONTROL_MAX_BYTES:
        raise ProtocolError(
            f"a control message has {size_bytes} bytes, at most {CONTROL_MAX_BYTES}", code="too_large"
        )
    return parse_message(decode_message(data, most_values=CONTROL_MAX_VALUES))
