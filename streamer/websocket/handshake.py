"""The first message of a connection: waits for a hello that can be met."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import WSMessage, WSMsgType

from streamer.access.failed_keys import TooManyWrongKeys
from streamer.access.identity import Identity, Scope
from streamer.http.gate import Gate
from streamer.protocol.client_messages import Hello, parse_message
from streamer.protocol.close_codes import CloseCode, CloseConnection
from streamer.protocol.wire import FRAME_MARK, ProtocolError, decode_message
from streamer.streams.session import UnsupportedCodec
from streamer.websocket.rate_limit import CONTROL_MAX_VALUES, size_in_bytes

#: Hellos with a wrong field that are answered with an error before the connection is closed.
HELLO_TRIES = 3


async def greet(
    receive: Callable[[], Awaitable[WSMessage]],
    welcome: Callable[[Hello], Awaitable[None]],
    send: Callable[[dict[str, Any]], None],
    limit_s: float,
    most_bytes: int,
) -> None:
    """Wait for a hello that can be met; each that cannot is answered with an error that names the field.

    ``welcome`` opens the session or raises ProtocolError; ``most_bytes`` is the largest hello. Raises
    CloseConnection when there will be none.
    """
    tries = 0
    try:
        async with asyncio.timeout(limit_s):
            while True:
                message = await receive()
                if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                    raise CloseConnection(CloseCode.DONE, "closed before hello")
                try:
                    hello = parse_hello(message.data, send, most_bytes)
                    await welcome(hello)
                except UnsupportedCodec as error:
                    send(error_message(error))
                    raise CloseConnection(CloseCode.UNSUPPORTED, str(error)) from error
                except ProtocolError as error:
                    tries += 1
                    send(error_message(error))
                    if tries >= HELLO_TRIES:
                        raise CloseConnection(CloseCode.MALFORMED, str(error)) from error
                else:
                    return
    except TimeoutError:
        raise CloseConnection(CloseCode.HELLO_TIMEOUT, f"no hello within {limit_s:g} s") from None


def parse_hello(data: str | bytes, send: Callable[[dict[str, Any]], None], most_bytes: int) -> Hello:
    """Parse the first message. What is not even a hello closes at once; a wrong field may be mended."""
    if isinstance(data, bytes) and data[:1] == bytes((FRAME_MARK,)):
        raise CloseConnection(CloseCode.MALFORMED, "the first message is `hello`, found a frame")
    # Bytes, and before anything is parsed: the sender has not shown who it is.
    if len(data) > most_bytes or size_in_bytes(data) > most_bytes:
        raise CloseConnection(
            CloseCode.LIMITS,
            f"hello has {size_in_bytes(data)} bytes, at most {most_bytes}; send the rest with `configure`",
        )
    try:
        message = decode_message(data, most_values=CONTROL_MAX_VALUES)
    except ProtocolError as error:
        if error.code == "invalid":  # parses, but a number is not finite: the field is named
            raise
        send(error_message(error, fatal=True))
        raise CloseConnection(CloseCode.MALFORMED, str(error)) from error
    if message["type"] != "hello":
        raise CloseConnection(
            CloseCode.MALFORMED, f"the first message is `hello`, found {message['type'][:40]!r}"
        )
    hello = parse_message(message)
    if not isinstance(hello, Hello):
        raise CloseConnection(CloseCode.MALFORMED, "the first message is `hello`")
    return hello


async def identify(gate: Gate, token: str | None, address: str) -> Identity:
    """Return whose key or ticket `hello.token` is. Raises CloseConnection unless it may stream."""
    try:
        identity = await gate.identify(token, address, tickets=True) if token else None
    except TooManyWrongKeys as error:
        raise CloseConnection(CloseCode.LIMITS, str(error)) from error
    if identity is None:
        raise CloseConnection(CloseCode.UNAUTHORIZED, "`hello.token` is missing or not a key of this server")
    if not identity.may(Scope.STREAM):
        raise CloseConnection(CloseCode.UNAUTHORIZED, "the key of `hello.token` has no scope stream")
    return identity


def error_message(error: ProtocolError, *, fatal: bool = False) -> dict[str, Any]:
    """Return the ``error`` message for what is wrong with a message."""
    message: dict[str, Any] = {"type": "error", "code": error.code, "message": str(error), "fatal": fatal}
    if error.field:
        message["field"] = error.field
    return message
