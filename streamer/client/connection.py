"""Holds one WebSocket connection of ``detect.v1``; `reconnect` opens a new one after a loss."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any

import aiohttp

from streamer.client.address import Address
from streamer.client.errors import BadInput, ConnectionFailed, Rejected
from streamer.client.http import connect_error_text, retry_after_s
from streamer.core.redact import MASK
from streamer.protocol.close_codes import FINAL_CLOSE_CODES, CloseCode
from streamer.protocol.wire import (
    SUBPROTOCOL_JSON,
    SUBPROTOCOLS,
    Frame,
    ProtocolError,
    decode_message,
    encode_message,
    pack_frame,
)

#: Largest message that is accepted. A result with 1000 boxes has about 60 KiB.
MAX_MESSAGE_BYTES = 4 << 20
HEARTBEAT_S = 20.0
CLOSE_TIMEOUT_S = 2.0
#: WebSocket close code 1009. A frame that a proxy finds too large would be refused after a reconnect too.
_MESSAGE_TOO_BIG = 1009
#: Largest hello that a server accepts from a client without an API key (docs/protocol.md).
HELLO_BYTES = 4 << 10
_FINAL = FINAL_CLOSE_CODES | {CloseCode.UNAUTHORIZED, _MESSAGE_TOO_BIG}
_REFUSALS = {
    400: "the server does not speak detect.v1 at this address",
    401: "the token is missing or wrong (--token, STREAMER_TOKEN)",
    403: "access is forbidden",
    404: "there is no stream endpoint at this address, or the server has no such model version",
    426: "the server requires another protocol at this address",
}


class ConnectionLost(ConnectionFailed):
    """An open connection has ended; connecting again may succeed."""


class Connection:
    """An open connection that has received its welcome."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, address: Address) -> None:
        self._socket = socket
        self._address = address
        self._subprotocol = socket.protocol or SUBPROTOCOL_JSON
        self.welcome: Mapping[str, Any] = {}
        #: Seconds that the server's `bye` asked the client to wait; None before a `bye`.
        self.reconnect_s: float | None = None
        #: Whether the server has sent `bye`. It may still answer frames that it received before.
        self.leaving = False

    @classmethod
    async def open(
        cls,
        session: aiohttp.ClientSession,
        address: Address,
        hello: dict[str, Any],
        *,
        tls: ssl.SSLContext | bool = True,
        timeout_s: float = 10.0,
    ) -> Connection:
        """Connect, send ``hello`` and wait for the welcome.

        Raises Rejected (refused permanently), BadInput (a parameter is wrong) or ConnectionFailed.
        """
        try:
            async with asyncio.timeout(timeout_s):
                connection = cls(await _upgrade(session, address, tls), address)
                try:
                    await connection._greet(hello)
                except BaseException:
                    await connection.close(CloseCode.DONE)
                    raise
                return connection
        except TimeoutError:
            raise ConnectionFailed(f"{address.shown} did not answer within {timeout_s:g} s") from None

    async def _greet(self, hello: dict[str, Any]) -> None:
        hello, classes = _split_hello(hello, self._subprotocol)
        await self.send(hello)
        self.welcome = await self._wait_for("welcome")
        if classes is not None:
            await self.send({"type": "configure", "cfg": 0, "params": {"classes": classes}})
            configured = await self._wait_for("configured")
            self.welcome = {**self.welcome, "params": configured.get("params", {})}

    async def _wait_for(self, kind: str) -> dict[str, Any]:
        """Return the next message of type ``kind``. Raises BadInput when an error arrives instead."""
        while True:
            message = await self.receive()
            if message["type"] == kind:
                return message
            if message["type"] == "error" and message.get("code") != "unknown_field":
                raise BadInput(self._address.clean(f"the server says: {message.get('message', '')}"))

    async def send(self, message: dict[str, Any]) -> None:
        """Send a control message. Raises ConnectionLost."""
        encoded = encode_message(message, self._subprotocol)
        try:
            if isinstance(encoded, str):
                await self._socket.send_str(encoded)
            else:
                await self._socket.send_bytes(encoded)
        except (ConnectionError, RuntimeError, aiohttp.ClientError) as error:
            raise ConnectionLost(self._address.clean(f"connection lost: {error}")) from None

    async def send_frame(self, frame: Frame) -> None:
        """Send a frame; return when the socket has accepted it. Raises ConnectionLost."""
        try:
            await self._socket.send_bytes(pack_frame(frame))
        except (ConnectionError, RuntimeError, aiohttp.ClientError) as error:
            raise ConnectionLost(self._address.clean(f"connection lost: {error}")) from None

    async def receive(self) -> dict[str, Any]:
        """Return the next message. Raises ConnectionLost, or Rejected when connecting again is useless."""
        while True:
            message = await self._socket.receive()
            if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                raise self._close_error(str(message.extra or ""))
            try:
                decoded = decode_message(message.data)
            except ProtocolError:
                continue  # this version does not know the message; the server may be newer
            if decoded["type"] == "bye":
                self.leaving = True
                asked = decoded.get("reconnect_ms")
                self.reconnect_s = asked / 1e3 if isinstance(asked, int | float) else None
            return decoded

    def _close_error(self, reason: str) -> ConnectionFailed | Rejected:
        code = self._socket.close_code
        if code is None or code in (CloseCode.DONE, 1006):
            return ConnectionLost("the connection was lost", retry_after_s=self.reconnect_s)
        name = CloseCode(code).name.lower().replace("_", " ") if code in set(CloseCode) else ""
        text = self._address.clean(f"the server closed the connection: {reason or name} ({code})")
        if code in _FINAL:
            return Rejected(text, code=code)
        return ConnectionLost(text, retry_after_s=self.reconnect_s)

    async def close(self, code: int = CloseCode.DONE) -> None:
        """Close the connection. Never raises, and takes at most `CLOSE_TIMEOUT_S`."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._socket.close(code=code)
        except (TimeoutError, ConnectionError, RuntimeError, aiohttp.ClientError):
            return


def _split_hello(hello: dict[str, Any], subprotocol: str) -> tuple[dict[str, Any], list[Any] | None]:
    """Return the hello and None; if it is too long, return it without ``classes``, and the classes.

    A server accepts only a short hello from a client without an API key. The caller sends the classes in a
    ``configure`` message instead.
    """
    if len(encode_message(hello, subprotocol)) <= HELLO_BYTES or "classes" not in hello.get("params", {}):
        return hello, None
    params = dict(hello["params"])
    classes: list[Any] = params.pop("classes")
    return {**hello, "params": params}, classes


async def _upgrade(
    session: aiohttp.ClientSession, address: Address, tls: ssl.SSLContext | bool
) -> aiohttp.ClientWebSocketResponse:
    try:
        return await session.ws_connect(
            address.url,
            protocols=SUBPROTOCOLS,
            headers=address.headers,
            compress=0,
            heartbeat=HEARTBEAT_S,
            max_msg_size=MAX_MESSAGE_BYTES,
            ssl=tls,
            timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT_S),
        )
    except aiohttp.WSServerHandshakeError as error:
        raise _upgrade_error(address, error) from None
    except aiohttp.InvalidURL as error:
        raise BadInput(f"address {address.shown!r} cannot be used: {address.clean(error)}") from None
    except aiohttp.ClientConnectorCertificateError as error:
        raise Rejected(
            f"the certificate of {address.shown} is not trusted: {address.clean(error.certificate_error)} "
            "(--ca-file, --insecure)",
            code=495,
        ) from None
    except aiohttp.ClientConnectorError as error:
        raise ConnectionFailed(f"cannot connect to {address.shown}: {connect_error_text(error)}") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise ConnectionFailed(f"cannot connect to {address.shown}: {address.clean(error)}") from None


def _upgrade_error(address: Address, error: aiohttp.WSServerHandshakeError) -> ConnectionFailed | Rejected:
    status = error.status
    if status == 429 or status >= 500:
        return ConnectionFailed(
            f"{address.shown} is not ready (HTTP {status})",
            retry_after_s=retry_after_s(error.headers or {}),
        )
    why = _REFUSALS.get(status, _REFUSALS[400])
    if status == 400 and f"={MASK}" in address.shown:
        why = "the address contains a key; pass the key as the token instead"
    return Rejected(f"{address.shown} refused the stream: {why} (HTTP {status})", code=status)
