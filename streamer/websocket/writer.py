"""The sending side of one WebSocket: queues messages in the outbox, sends them, and closes the socket."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from aiohttp import web

from streamer.core.byte_budget import Holding
from streamer.protocol.close_codes import CloseCode, CloseConnection
from streamer.protocol.server_messages import ServerMessage
from streamer.protocol.wire import encode_message
from streamer.websocket.outbox import Outbox, OutboxFull

log = logging.getLogger("streamer.connection")

#: A send that takes longer than this shows that the client reads slowly. From then on newer results replace
#: older ones.
SLOW_SEND_S = 0.05
#: An empty transport takes a shorter message without pausing. Text is measured in characters, which have up
#: to four bytes; the high-water mark of the transport is 64 KiB.
_SMALL_BYTES = 8 << 10
#: When the connection closes: the time to send waiting messages, and then the time for the close frame.
FLUSH_S = 1.0
CLOSE_S = 2.0


class StreamSocket(web.WebSocketResponse):
    """A WebSocket that can be released as soon as its connection is lost.

    A lost connection cancels the task that serves it, and aiohttp then leaves the timer of its heartbeat
    running, which keeps the socket and its request in memory until the next ping is due.
    """

    def stop_heartbeat(self) -> None:
        """Stop sending pings, because the connection has ended."""
        self._cancel_heartbeat()


class SocketWriter:
    """Queues messages without waiting and sends them in order. The connection owns it and runs its task.

    A client that takes nothing for ``send_timeout_s`` is closed with 4441. ``hold`` returns the client's
    holding in the byte budget, to which the queued messages are charged.
    """

    def __init__(
        self,
        socket: StreamSocket,
        transport: asyncio.Transport | None,
        subprotocol: str,
        *,
        send_timeout_s: float,
        hold: Callable[[], Holding],
    ) -> None:
        self._socket = socket
        self._transport = transport
        self._subprotocol = subprotocol
        self._send_timeout_s = send_timeout_s
        self._outbox = Outbox(self._encode, hold)
        #: Set when a message is queued, while the task waits for one; None while it does not wait. An event
        #: would take 0.8 KB of every idle connection.
        self._filled: asyncio.Future[None] | None = None
        #: When the send in progress began, in monotonic seconds; 0 while none is in progress.
        self._sending_since = 0.0

    def __len__(self) -> int:
        """Return how many messages wait."""
        return len(self._outbox)

    def put(self, message: ServerMessage, *, newest_only: bool) -> int:
        """Queue one message; returns how many unsent results it replaced.

        ``newest_only``: while the client reads slowly, its stream keeps only the newest result. Raises
        CloseConnection when nothing more fits, or for a message that cannot be encoded.
        """
        encoded = None
        if not self._outbox.messages and self._has_room:
            encoded = self._encode(message)
            if len(encoded) < _SMALL_BYTES:
                self._send_now(encoded)
                return 0
        slow = bool(self._sending_since) and time.monotonic() - self._sending_since > SLOW_SEND_S
        try:
            replaced = self._outbox.put(message, encoded, replace_results=slow and newest_only)
        except OutboxFull as error:
            raise CloseConnection(CloseCode.SLOW_CONSUMER, str(error)) from error
        if self._filled is not None and not self._filled.done():
            self._filled.set_result(None)
        return replaced

    async def run(self) -> None:
        """Send what is queued until cancelled or the socket is gone.

        Raises CloseConnection for a client that does not read.
        """
        try:
            while True:
                encoded = self._outbox.take()
                if encoded is None:
                    self._filled = asyncio.get_running_loop().create_future()
                    await self._filled
                    self._filled = None
                    continue
                if len(encoded) < _SMALL_BYTES and self._has_room:
                    await self._send(encoded)
                    continue
                self._sending_since = time.monotonic()
                async with asyncio.timeout(self._send_timeout_s):
                    await self._send(encoded)
                self._sending_since = 0.0
        except TimeoutError:
            raise CloseConnection(
                CloseCode.SLOW_CONSUMER, f"a send took longer than {self._send_timeout_s:g} s"
            ) from None
        except (ConnectionError, RuntimeError):  # the socket is gone, which the reading task sees too
            return

    @property
    def _has_room(self) -> bool:
        """Whether the transport is empty, so that it accepts a small message without pausing."""
        transport = self._transport
        return transport is not None and not transport.get_write_buffer_size()

    def _send_now(self, encoded: str | bytes) -> None:
        """Send a small message into an empty transport, where sending never waits.

        The writing task would do the same in the next iteration of the event loop, with 25 more calls for
        each result.
        """
        sending = self._send(encoded)
        try:
            sending.send(None)
        except StopIteration:
            return
        except (ConnectionError, RuntimeError):  # the socket is gone, which the reading task sees too
            return
        # Not reached: a small message has been written by now, without waiting.
        sending.close()

    async def _send(self, encoded: str | bytes) -> None:
        if isinstance(encoded, str):
            await self._socket.send_str(encoded)
        else:
            await self._socket.send_bytes(encoded)

    def _encode(self, message: ServerMessage) -> str | bytes:
        try:
            return encode_message(message, self._subprotocol)
        except (ValueError, TypeError, OverflowError) as error:  # a fault of the server: close the connection
            log.exception("a message of type %s cannot be encoded", message["type"])
            raise CloseConnection(CloseCode.SERVER_FAULT, "the server failed to encode a message") from error

    async def flush(self, task: asyncio.Task[None]) -> None:
        """Wait until ``task``, which runs :meth:`run`, has sent everything, for at most ``FLUSH_S``."""
        deadline = time.monotonic() + FLUSH_S
        while len(self._outbox) and not task.done() and time.monotonic() < deadline:
            await asyncio.sleep(0.005)

    def drop(self, *, keep_heartbeat: bool = False) -> None:
        """Drop the messages that still wait, and unless another task continues the socket, its heartbeat."""
        self._outbox.close()
        if not keep_heartbeat:
            self._socket.stop_heartbeat()

    async def close(self, close: CloseConnection) -> None:
        """Send the close frame. If the client does not accept even that, abort the connection."""
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._socket.close(code=close.code, message=close.reason.encode())
        except TimeoutError:
            if self._transport is not None:
                self._transport.abort()
        except (ConnectionError, RuntimeError):
            return
