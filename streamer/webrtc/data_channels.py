"""The data channels of a client: `results` may lose messages, `control` does not. Either may be missing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

from streamer.protocol.server_messages import ServerMessage
from streamer.protocol.wire import SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK, encode_message

log = logging.getLogger("streamer.webrtc.channels")

RESULTS, CONTROL = "results", "control"
#: With more bytes waiting in the channel, new results are left out until the network has caught up.
RESULTS_WAITING_BYTES = 32 << 10
#: With more bytes of control messages waiting, the client counts as not reading, and its session ends.
CONTROL_WAITING_BYTES = 256 << 10


class Channel(Protocol):
    """What is used of a data channel of aiortc."""

    label: str
    protocol: str
    readyState: str  # noqa: N815 - the name in the WebRTC API
    bufferedAmount: int  # noqa: N815

    def send(self, data: str | bytes) -> None:
        """Queue one message. Raises when the channel is not open."""

    def on(self, event: str, listener: Callable[..., None]) -> Any:
        """Register a listener."""

    def close(self) -> None:
        """Close the channel."""


class ChannelFull(Exception):
    """The client does not read its control messages."""


class Channels:
    """Sends each message on the channel for its type."""

    def __init__(self, on_open: Callable[[], None], on_message: Callable[[str | bytes], None]) -> None:
        self._channels: dict[str, Channel] = {}
        self._on_open = on_open
        self._on_message = on_message
        self.undelivered = 0

    def opened(self, channel: Channel) -> None:
        """Use a channel that the client opened; channels with other labels are closed."""
        if channel.label not in (RESULTS, CONTROL) or channel.label in self._channels:
            channel.close()
            return
        self._channels[channel.label] = channel
        channel.on("message", self._on_message)
        if channel.label == CONTROL:
            self._on_open()

    def send(self, message: ServerMessage) -> None:
        """Send one message if there is a channel. Raises ChannelFull."""
        is_result = message["type"] == "result"
        preferred, otherwise = (RESULTS, CONTROL) if is_result else (CONTROL, RESULTS)
        channel = self._channels.get(preferred) or self._channels.get(otherwise)
        if channel is None or channel.readyState != "open":
            return
        if is_result and channel.bufferedAmount > RESULTS_WAITING_BYTES:
            self.undelivered += 1
            return
        if channel.bufferedAmount > CONTROL_WAITING_BYTES:
            raise ChannelFull(f"{channel.bufferedAmount} bytes wait for a client that does not read")
        name = SUBPROTOCOL_MSGPACK if channel.protocol == SUBPROTOCOL_MSGPACK else SUBPROTOCOL_JSON
        channel.send(encode_message(message, name))
