"""One WebSocket connection of ``detect.v1``, and the connector that opens a new one after a loss."""

from __future__ import annotations

import asyncio
import math
import ssl
import time
from collections.abc import Mapping
from typing import Any

import aiohttp

from streamer.client.address import Address
from streamer.client.errors import BadInput, ConnectionFailed, Rejected
from streamer.client.http import connect_error_text, retry_after_s
from streamer.client.options import Options
from streamer.client.state import Phase, State, Watcher
from streamer.console.redact import MASK
from streamer.core.backoff import Backoff
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

#: Answers of ours are small; a frame's result with 1000 boxes is about 60 KiB.
MAX_MESSAGE_BYTES = 4 << 20
HEARTBEAT_S = 20.0
CLOSE_TIMEOUT_S = 2.0
#: A frame larger than some proxy allows would only be sent again and again.
_MESSAGE_TOO_BIG = 1009
#: The largest hello that is taken from a client that has shown no key (docs/protocol.md).
HELLO_BYTES = 4 << 10
_FINAL = FINAL_CLOSE_CODES | {CloseCode.UNAUTHORIZED, _MESSAGE_TOO_BIG}
_REFUSALS = {
    400: "the server does not speak detect.v1 at this address",
    401: "the token is missing or wrong (--token, STREAMER_TOKEN)",
    403: "access is forbidden",
    404: "there is no stream at this address, or the server has no such model version",
    426: "the server wants another protocol at this address",
}


class ConnectionLost(ConnectionFailed):
    """An open connection has ended; worth another try."""


class Connection:
    """An open connection after its welcome."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, address: Address) -> None:
        self._socket = socket
        self._address = address
        self._subprotocol = socket.protocol or SUBPROTOCOL_JSON
        self.welcome: Mapping[str, Any] = {}
        #: What the server's `bye` asked for, seconds.
        self.reconnect_s: float | None = None
        #: Whether the server has said that it goes away; what was sent may still be answered.
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
        """Connect and greet.

        Raises Rejected (refused for good), BadInput (a parameter is wrong) or ConnectionFailed.
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
        hello, classes = _split(hello, self._subprotocol)
        await self.send(hello)
        self.welcome = await self._answer("welcome")
        if classes is not None:
            await self.send({"type": "configure", "cfg": 0, "params": {"classes": classes}})
            configured = await self._answer("configured")
            self.welcome = {**self.welcome, "params": configured.get("params", {})}

    async def _answer(self, kind: str) -> dict[str, Any]:
        """Return the next message of that type. Raises BadInput for an error that comes instead."""
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
        """Send a frame; returns when the socket has taken it. Raises ConnectionLost."""
        try:
            await self._socket.send_bytes(pack_frame(frame))
        except (ConnectionError, RuntimeError, aiohttp.ClientError) as error:
            raise ConnectionLost(self._address.clean(f"connection lost: {error}")) from None

    async def receive(self) -> dict[str, Any]:
        """Return the next message. Raises ConnectionLost, or Rejected when the server closed for good."""
        while True:
            message = await self._socket.receive()
            if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                raise self._ended(str(message.extra or ""))
            try:
                decoded = decode_message(message.data)
            except ProtocolError:
                continue  # not of detect.v1; a newer server may know why
            if decoded["type"] == "bye":
                self.leaving = True
                asked = decoded.get("reconnect_ms")
                self.reconnect_s = asked / 1e3 if isinstance(asked, int | float) else None
            return decoded

    def _ended(self, reason: str) -> ConnectionFailed | Rejected:
        code = self._socket.close_code
        if code is None or code in (CloseCode.DONE, 1006):
            return ConnectionLost("the connection was lost", retry_after_s=self.reconnect_s)
        name = CloseCode(code).name.lower().replace("_", " ") if code in set(CloseCode) else ""
        text = self._address.clean(f"the server closed the connection: {reason or name} ({code})")
        if code in _FINAL:
            return Rejected(text, code=code)
        return ConnectionLost(text, retry_after_s=self.reconnect_s)

    async def close(self, code: int = CloseCode.DONE) -> None:
        """Close; never raises, never takes long."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._socket.close(code=code)
        except (TimeoutError, ConnectionError, RuntimeError, aiohttp.ClientError):
            return


def _split(hello: dict[str, Any], subprotocol: str) -> tuple[dict[str, Any], list[Any] | None]:
    """Return a hello that every server takes, and the classes to ask for after it; None when all fits.

    A server that has seen no key takes a short hello only.
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
        raise _refused(address, error) from None
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


def _refused(address: Address, error: aiohttp.WSServerHandshakeError) -> ConnectionFailed | Rejected:
    status = error.status
    if status == 429 or status >= 500:
        return ConnectionFailed(
            f"{address.shown} is not ready (HTTP {status})",
            retry_after_s=retry_after_s(error.headers or {}),
        )
    why = _REFUSALS.get(status, _REFUSALS[400])
    if status == 400 and f"={MASK}" in address.shown:
        why = "a key does not belong in the address; give it as the token"
    return Rejected(f"{address.shown} refused the stream: {why} (HTTP {status})", code=status)


class Connector:
    """Connects to one address. ``report`` is told of every try."""

    def __init__(self, address: Address, options: Options, report: Watcher) -> None:
        self.backoff = Backoff()
        self._address = address
        self._options = options
        self._tls: ssl.SSLContext | bool = options.tls.context()
        self._report = report

    async def connect(self, session: aiohttp.ClientSession, hello: dict[str, Any]) -> Connection:
        """Return an open connection.

        Raises ConnectionFailed after ``give_up_after_s``; Rejected and BadInput at once.
        """
        patience_s = self._options.give_up_after_s
        give_up_at = math.inf if patience_s is None else time.monotonic() + patience_s
        while True:
            self._report(State(Phase.CONNECTING, self._address.shown))
            try:
                return await Connection.open(
                    session,
                    self._address,
                    hello,
                    tls=self._tls,
                    timeout_s=self._options.connect_timeout_s,
                )
            except ConnectionFailed as error:
                await self.pause(error, give_up_at)

    async def pause(self, error: ConnectionFailed, give_up_at: float = math.inf) -> None:
        """Wait as long as the server asked, else with jitter. Raises ``error`` when patience ends."""
        delay_s = self.backoff.next_s(error.retry_after_s)
        if self._options.give_up_after_s == 0 or time.monotonic() + delay_s > give_up_at:
            raise error
        self._report(State(Phase.WAITING, str(error), retry_s=delay_s))
        await asyncio.sleep(delay_s)
