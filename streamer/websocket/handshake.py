"""The handshake of a WebSocket: waits for a valid hello, and bounds how many sockets may be without one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from aiohttp import WSMessage, WSMsgType, web

from streamer.access.failed_keys import TooManyWrongKeys
from streamer.access.identity import Identity, Scope
from streamer.http.authentication import Authenticator
from streamer.http.connection_limits import ReadLimiter
from streamer.http.problem_details import Problem
from streamer.http.tickets import SUBPROTOCOL_PREFIX
from streamer.protocol import server_messages
from streamer.protocol.client_messages import Hello, parse_message
from streamer.protocol.close_codes import CloseCode, CloseConnection
from streamer.protocol.server_messages import ServerMessage
from streamer.protocol.wire import (
    FRAME_MARK,
    SUBPROTOCOL_JSON,
    SUBPROTOCOLS,
    ProtocolError,
    decode_message,
)
from streamer.streams.session import UnsupportedCodec
from streamer.streams.session_control import CONTROL_MAX_VALUES, size_in_bytes

#: Number of invalid hellos after which the connection is closed.
HELLO_TRIES = 3
#: The largest hello of a client that has not shown a valid key yet.
HELLO_MAX_BYTES = 4 << 10
#: Most WebSockets of one address, and of all together, that may be open without an accepted hello. Many
#: clients of one network come back at once after a restart; each needs a slot for one round trip.
MOST_PER_ADDRESS = 64
MOST_IN_ALL = 512
#: When a refused client may retry. A hello is due within seconds, so slots become free in that time.
_RETRY_S = 2


class HelloReader:
    """Reads messages until the hello is accepted, within the bytes that ``limiter`` lets through.

    ``close_soon`` closes the connection with a code and a reason when a client sends more.
    """

    def __init__(
        self, limiter: ReadLimiter, socket: web.WebSocketResponse, close_soon: Callable[[int, str], None]
    ) -> None:
        self._limiter = limiter
        self._socket = socket
        self._close_soon = close_soon
        #: The last message, as it came.
        self.last: str | bytes = b""
        limiter.on_excess = self._too_long
        limiter.on_full = self._no_room

    @property
    def max_bytes(self) -> int:
        """The size of the largest hello."""
        return self._limiter.hello_bytes

    async def receive(self) -> WSMessage:
        """Return the next message."""
        self._limiter.expect_hello()
        message = await self._socket.receive()
        self._limiter.hello_received()
        self.last = message.data
        return message

    def _too_long(self) -> None:
        text = f"{self._limiter.max_bytes} bytes came without a hello in them; it is shorter"
        self._close_soon(CloseCode.LIMITS, text)

    def _no_room(self) -> None:
        text = "the server has no room for a message of this size now"
        self._close_soon(CloseCode.OVERLOADED, text)


async def await_hello(
    reader: HelloReader,
    welcome: Callable[[Hello], Awaitable[None]],
    send: Callable[[ServerMessage], None],
    limit_s: float,
) -> None:
    """Wait for a valid hello. Answer each invalid one with an error that names the field.

    ``welcome`` opens the session, or raises ProtocolError. Raises CloseConnection when no valid hello comes.
    """
    tries = 0
    try:
        async with asyncio.timeout(limit_s):
            while True:
                message = await reader.receive()
                if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                    raise CloseConnection(CloseCode.DONE, "closed before hello")
                try:
                    hello = parse_hello(message.data, send, reader.max_bytes)
                    await welcome(hello)
                except UnsupportedCodec as error:
                    send(server_messages.protocol_error(error))
                    raise CloseConnection(CloseCode.UNSUPPORTED, str(error)) from error
                except ProtocolError as error:
                    tries += 1
                    send(server_messages.protocol_error(error))
                    if tries >= HELLO_TRIES:
                        raise CloseConnection(CloseCode.MALFORMED, str(error)) from error
                else:
                    return
    except TimeoutError:
        raise CloseConnection(CloseCode.HELLO_TIMEOUT, f"no hello within {limit_s:g} s") from None


def parse_hello(data: str | bytes, send: Callable[[ServerMessage], None], most_bytes: int) -> Hello:
    """Parse the first message.

    Raises CloseConnection when it is not a hello or is too long, and ProtocolError for a wrong field, which
    the client may correct.
    """
    if isinstance(data, bytes) and data[:1] == bytes((FRAME_MARK,)):
        raise CloseConnection(CloseCode.MALFORMED, "the first message is `hello`, found a frame")
    # The size is checked before anything is parsed, because the sender has not authenticated yet.
    if len(data) > most_bytes or size_in_bytes(data) > most_bytes:
        raise CloseConnection(
            CloseCode.LIMITS,
            f"hello has {size_in_bytes(data)} bytes, at most {most_bytes}; send the rest with `configure`",
        )
    try:
        message = decode_message(data, most_values=CONTROL_MAX_VALUES)
    except ProtocolError as error:
        if (
            error.code == "invalid"
        ):  # the message parses, but a number is not finite; the error names the field
            raise
        send(server_messages.protocol_error(error, fatal=True))
        raise CloseConnection(CloseCode.MALFORMED, str(error)) from error
    if message["type"] != "hello":
        raise CloseConnection(
            CloseCode.MALFORMED, f"the first message is `hello`, found {message['type'][:40]!r}"
        )
    hello = parse_message(message)
    if not isinstance(hello, Hello):
        raise CloseConnection(CloseCode.MALFORMED, "the first message is `hello`")
    return hello


async def identify(authenticator: Authenticator, token: str | None, address: str) -> Identity:
    """Return the owner of the key or ticket in `hello.token`. Raises CloseConnection unless it may stream."""
    try:
        identity = await authenticator.identify(token, address, tickets=True) if token else None
    except TooManyWrongKeys as error:
        raise CloseConnection(CloseCode.LIMITS, str(error)) from error
    if identity is None:
        raise CloseConnection(CloseCode.UNAUTHORIZED, "`hello.token` is missing or not a key of this server")
    if not identity.may(Scope.STREAM):
        raise CloseConnection(CloseCode.UNAUTHORIZED, "the key of `hello.token` has no scope stream")
    return identity


def choose_subprotocol(request: web.Request) -> str:
    """Return the first offered subprotocol that is known; JSON when none was offered."""
    offered = [
        name.strip()
        for header in request.headers.getall("Sec-WebSocket-Protocol", [])
        for name in header.split(",")
        if name.strip() and not name.strip().startswith(SUBPROTOCOL_PREFIX)
    ]
    if not offered:
        return SUBPROTOCOL_JSON
    for name in offered:
        if name in SUBPROTOCOLS:
            return name
    raise Problem.bad_request(
        f"Subprotocols {', '.join(offered)[:200]!r} are not known; allowed are {', '.join(SUBPROTOCOLS)}."
    )


class HandshakeSlots:
    """Counts the sockets without an accepted hello, for each client address and in all."""

    def __init__(self, per_address: int = MOST_PER_ADDRESS, in_all: int = MOST_IN_ALL) -> None:
        self._per_address = per_address
        self._in_all = in_all
        self._taken: Counter[str] = Counter()
        self._count = 0

    def take(self, address: str) -> None:
        """Take a slot. Raises Problem 503 when none is left for the address or for all addresses together."""
        if self._count >= self._in_all or self._taken[address] >= self._per_address:
            raise Problem.unavailable(
                "Too many connections have not sent their hello yet; try again.", retry_after_s=_RETRY_S
            )
        self._taken[address] += 1
        self._count += 1

    def release(self, address: str) -> None:
        """Give a slot back. Call it once for each slot that was taken."""
        self._count -= 1
        self._taken[address] -= 1
        if not self._taken[address]:
            del self._taken[address]

    def __len__(self) -> int:
        return self._count
