"""Limits the rate and size of a client's control messages, and carries them out on its session.

`SessionControl.receive` takes encoded messages, and `SessionControl.handle` takes messages that the transport
has decoded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from streamer.core import clock
from streamer.core.token_bucket import TokenBucket
from streamer.protocol import server_messages
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
from streamer.protocol.server_messages import ServerMessage
from streamer.protocol.wire import ProtocolError, decode_message
from streamer.streams.session import Session
from streamer.streams.stream_handle import StreamHandle

CONTROL_MAX_BYTES = 64 << 10
#: Maximum number of values in one control message, at any depth. It is four times the length of the longest
#: list of classes.
CONTROL_MAX_VALUES = 4096
#: A message costs one token, and one more for each block of this many bytes. A kilobyte of numbers takes some
#: 0.5 ms to parse and check, and a burst of messages 40 ms.
_BYTES_PER_TOKEN = 1 << 10
#: Maximum cost of a message. It is bounded because the number of values in a message is, too.
_MAX_TOKENS = 6
CONTROL_PER_S = 20.0
#: Number of messages that may come at once, because a burst of short messages at the start of a session, or
#: from a slider, is not abuse.
CONTROL_BURST = 60
#: Number of messages that are refused for their rate. After one more the session ends.
CONTROL_REFUSALS = 60


class RateLimited(Exception):
    """The message came too soon after earlier ones. It is ignored, and the client gets an error."""


class TooManyMessages(Exception):
    """The client has ignored errors about its rate. Its session must end."""


class ControlRate:
    """Limits the rate of one client's messages.

    Errors call the messages ``noun``. Times are monotonic seconds.
    """

    def __init__(
        self,
        now: float,
        per_s: float = CONTROL_PER_S,
        burst: int = CONTROL_BURST,
        noun: str = "control messages",
    ) -> None:
        self._bucket = TokenBucket(per_s, burst, now)
        self._refusals = 0
        self._text = f"more than {per_s:g} {noun} a second"

    def charge(self, now: float, size_bytes: int = 0) -> None:
        """Count one message of that size. Raises RateLimited or TooManyMessages."""
        if self._bucket.take(now, min(_MAX_TOKENS, 1 + size_bytes // _BYTES_PER_TOKEN)):
            return
        self._refusals += 1
        if self._refusals > CONTROL_REFUSALS:
            raise TooManyMessages(self._text)
        raise RateLimited(self._text)


def size_in_bytes(data: str | bytes) -> int:
    """Return the number of bytes of an encoded message; a character of a text may take up to four bytes."""
    if isinstance(data, bytes) or data.isascii():
        return len(data)
    return len(data.encode(errors="surrogatepass"))


#: Maximum number of unknown fields that are reported for one message, and in one session.
_MAX_REPORTED_OF_MESSAGE = 5
_MAX_REPORTED = 50


class ControlTarget(Protocol):
    """Describes the connection on whose session control messages act."""

    session: Session

    def find_stream(self, number: int) -> StreamHandle:
        """Return the stream of that number. Raises ProtocolError when there is none."""

    def send_all(self, messages: list[ServerMessage]) -> None:
        """Queue messages without waiting."""

    def bye_received(self) -> None:
        """Note that the client has said that it leaves."""


class SessionControl:
    """Carries out control messages, limits their rate, and reports fields that the protocol does not have.

    ``refused`` maps message types that this transport does not accept to the reason. ``flow_on_ping`` are the
    streams for which a ``flow`` message follows the answer to a ping.
    """

    def __init__(
        self,
        target: ControlTarget,
        refused: Mapping[str, str],
        flow_on_ping: Mapping[int, StreamHandle],
    ) -> None:
        self.rate = ControlRate(clock.monotonic())
        self._target = target
        self._refused = refused
        self._flow_on_ping = flow_on_ping
        #: Message type and name of each unknown field that was reported.
        self._reported: set[tuple[str, str]] = set()

    def receive(self, data: str | bytes) -> None:
        """Decode one message, carry it out, and send errors to the client. Raises TooManyMessages."""
        now = clock.monotonic()
        size_bytes = size_in_bytes(data)
        try:
            self.rate.charge(now, min(size_bytes, CONTROL_MAX_BYTES))
            self.handle(_decode(data, size_bytes), now)
        except RateLimited as limited:
            self._send(server_messages.rate_limited(str(limited)))
        except ProtocolError as error:
            self._send(server_messages.protocol_error(error))

    def handle(self, decoded: dict[str, Any], received_s: float) -> None:
        """Carry out one decoded message. Raises ProtocolError if it is invalid or refused."""
        message_type = decoded["type"]
        if message_type in self._refused:
            raise ProtocolError(
                f"field `type` is {message_type}, {self._refused[message_type]}",
                code="unexpected",
                field="type",
            )
        message = parse_message(decoded)
        target = self._target
        if isinstance(message, Configure):
            target.session.configure(message.params)
            target.session.cfg = message.cfg
            self._send(server_messages.configured(message.cfg, target.session.describe_params()))
        elif isinstance(message, Ping):
            self._send(server_messages.pong(message.t0, received_s, clock.monotonic()))
            for handle in self._flow_on_ping.values():
                target.send_all(handle.flow.flow_messages("ping"))
        elif isinstance(message, Pause | Resume):
            flow = target.find_stream(message.stream).flow
            target.send_all(flow.pause() if isinstance(message, Pause) else flow.resume())
        elif isinstance(message, Report):
            target.find_stream(message.stream).report(message.note)
        elif isinstance(message, Bye):
            target.bye_received()
        self.report_unknown_fields(message)

    def report_unknown_fields(self, message: Message) -> None:
        """Report each ignored field to the client once, because most such fields are misspelt."""
        for name in message.unknown_fields()[:_MAX_REPORTED_OF_MESSAGE]:
            field = (message.type, name)
            if field in self._reported or len(self._reported) >= _MAX_REPORTED:
                continue
            self._reported.add(field)
            self._send(server_messages.unknown_field(name, message.type))

    def _send(self, message: ServerMessage) -> None:
        self._target.send_all([message])


def _decode(data: str | bytes, size_bytes: int) -> dict[str, Any]:
    """Return the fields of a message. Raises ProtocolError if it is too large or malformed."""
    if size_bytes > CONTROL_MAX_BYTES:
        raise ProtocolError(
            f"a control message has {size_bytes} bytes, at most {CONTROL_MAX_BYTES}", code="too_large"
        )
    return decode_message(data, most_values=CONTROL_MAX_VALUES)
