"""Runs one recorded `detect.v1` connection: sends messages step by step and logs what comes back."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any

import msgpack
from websockets.exceptions import ConnectionClosed

from tests.helpers.wire_client import WireClient, frame_message
from tests.recordings.normalise import normalise, normalise_text, shape

TIMEOUT_S = 60.0
#: Type of the messages that change the window. When they arrive depends on the speed of the machine, so they
#: are logged only where the script waits for one, and if they answer a message of the client.
_UNASKED = "flow"
_ASKED_REASONS = ("ping", "resumed")
_MOST_SHOWN = 120


class WebsocketLog:
    """Logs what is sent and received over ``client``, in order."""

    def __init__(self, client: WireClient) -> None:
        self._client = client
        self.entries: list[dict[str, Any]] = []

    async def say(self, message: dict[str, Any] | str | bytes, *until: str) -> dict[str, Any]:
        """Send a message; with types, read up to one of them or the close, and return that message."""
        if isinstance(message, dict):
            self.entries.append({"sent": normalise(message)})
            await self._client.send(message)
        else:
            self.entries.append({"sent": _show(message)})
            # The service may close before the whole message is sent; the close is read below.
            with contextlib.suppress(ConnectionClosed):
                await self._client.socket.send(message)
        return await self.hear(*until)

    async def hello(self, *until: str, **fields: Any) -> dict[str, Any]:
        """Send a hello with these fields, and read up to one of these types, by default the welcome."""
        return await self.say({"type": "hello", **fields}, *(until or ("welcome",)))

    async def frame(self, seq: int, payload: bytes, *until: str, **fields: Any) -> dict[str, Any]:
        """Send a binary frame, and read up to one of these types, by default a result."""
        self.entries.append({"sent": {"type": "(binary frame)", "seq": seq, **fields}})
        await self._client.send_frame(seq, payload, **fields)
        return await self.hear(*(until or ("result",)))

    async def hear(self, *until: str) -> dict[str, Any]:
        """Read up to a message of one of these types, or to the close of the connection."""
        while until:
            message = await self._next()
            if message is None:
                break
            asked = _UNASKED in until and message.get("reason") in _ASKED_REASONS
            if message["type"] == _UNASKED and not asked:
                continue
            self.entries.append({"received": normalise(message)})
            if message["type"] in until:
                return message
        return {}

    async def closed(self) -> None:
        """Read up to the close of the connection."""
        await self.hear("(nothing but the close)")

    async def flood(self, messages: list[str | bytes], keep: Callable[[dict[str, Any]], bool]) -> None:
        """Send all messages at once, read to the close, and log each distinct shape that ``keep`` accepts."""
        self.entries.append({"sent": f"{_show(messages[0])} and {len(messages) - 1} more like it"})
        with contextlib.suppress(ConnectionClosed):
            for sent in messages:
                await self._client.socket.send(sent)
        seen: list[dict[str, Any]] = []
        while (message := await self._next()) is not None:
            words = {name: message[name] for name in ("type", "code") if name in message}
            one = {**shape(message), **words}
            if keep(message) and one not in seen:
                seen.append(one)
        # The close is already the last entry and must stay last, so the messages go in front of it.
        self.entries[-1:-1] = [{"received": one} for one in seen]

    async def _next(self) -> dict[str, Any] | None:
        """Return the next message; if the connection is closed, log the close and return None."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await self._client.next(TIMEOUT_S)
        except ConnectionClosed as error:
            close = error.rcvd
            told = {} if close is None else {"code": close.code, "message": normalise_text(close.reason)}
            self.entries.append({"closed": told})
            return None


def _show(message: str | bytes) -> str:
    """Return a message as the recording shows it."""
    if isinstance(message, bytes):
        kind = "frame" if message[:1] == b"\x01" else "message"
        return f"(binary {kind} of {len(message)} bytes)"
    return message if len(message) <= _MOST_SHOWN else f"(text of {len(message)} characters)"


def packed(message: dict[str, Any], subprotocol: str) -> str | bytes:
    """Return a control message as it goes over the wire."""
    if subprotocol == "detect.v1.msgpack":
        data: bytes = msgpack.packb(message)
        return data
    return json.dumps(message)


def frames(count: int, payload: bytes) -> list[str | bytes]:
    """Return ``count`` frames of the same image, numbered from 1."""
    return [frame_message(seq, payload) for seq in range(1, count + 1)]
