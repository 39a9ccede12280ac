"""A detect.v1 client that uses the independent `websockets` package, for tests that check every message."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import msgpack
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

HEADER = struct.Struct("<BBBBIQHHBBH")
CODECS = {"jpeg": 0, "png": 1, "webp": 2, "heic": 3, "avif": 4, "h264": 16}


def frame_message(
    seq: int,
    payload: bytes,
    *,
    codec: str = "jpeg",
    ts: int = 0,
    stream: int = 0,
    rotation: int = 0,
    epoch: int = 0,
    flags: int = 1,
) -> bytes:
    """Return one binary frame message, packed as the protocol defines it, without the service's code."""
    return HEADER.pack(1, CODECS[codec], flags, 6, seq, ts, 0, 0, stream, rotation, epoch) + payload


class WireClient:
    """Runs one connection; ``outcomes`` lists, by stream, the numbers of the frames that have an outcome."""

    def __init__(
        self, url: str, *, subprotocol: str = "detect.v1.json", headers: dict[str, str] | None = None
    ) -> None:
        self._url = url
        self._subprotocol = subprotocol
        self._headers = headers or {}
        self._socket: ClientConnection | None = None
        self.outcomes: dict[int, list[int]] = {}

    async def __aenter__(self) -> WireClient:
        self._socket = await connect(
            self._url,
            subprotocols=[Subprotocol(name) for name in self._subprotocol.split(",")]
            if self._subprotocol
            else None,
            additional_headers=self._headers,
            max_size=None,
            compression=None,
            ping_interval=None,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.socket.close()

    @property
    def socket(self) -> ClientConnection:
        """The open connection."""
        assert self._socket is not None
        return self._socket

    async def send(self, message: dict[str, Any]) -> None:
        """Send a control message in the negotiated encoding."""
        if self.socket.subprotocol == "detect.v1.msgpack":
            await self.socket.send(msgpack.packb(message))
        else:
            await self.socket.send(json.dumps(message))

    async def hello(self, **fields: Any) -> dict[str, Any]:
        """Send hello and return welcome."""
        await self.send({"type": "hello", **fields})
        return await self.receive("welcome")

    async def send_frame(self, seq: int, payload: bytes, **fields: Any) -> None:
        """Send one binary frame."""
        await self.socket.send(frame_message(seq, payload, **fields))

    async def next(self, timeout_s: float = 60.0) -> dict[str, Any]:
        """Return the next message, and record its outcomes by stream."""
        async with asyncio.timeout(timeout_s):
            data = await self.socket.recv()
        message: dict[str, Any] = json.loads(data) if isinstance(data, str) else msgpack.unpackb(data)
        seen = self.outcomes.setdefault(message.get("stream", -1), [])
        if message["type"] == "result" or (message["type"] == "error" and "seq" in message):
            seen.append(message["seq"])
        elif message["type"] == "drop":
            seen.extend(range(message["from"], message["to"] + 1))
        return message

    async def receive(self, *kinds: str, timeout_s: float = 60.0) -> dict[str, Any]:
        """Return the next message of one of these types; skip others."""
        while True:
            message = await self.next(timeout_s)
            if message["type"] in kinds:
                return message

    async def until_outcomes(
        self, seqs: Sequence[int], *, stream: int = 0, timeout_s: float = 60.0
    ) -> list[dict[str, Any]]:
        """Read until each of ``seqs`` has an outcome; return the messages read."""
        messages = []
        async with asyncio.timeout(timeout_s):
            while not set(seqs) <= set(self.outcomes.get(stream, [])):
                messages.append(await self.next(timeout_s))
        return messages

    async def closed(self, timeout_s: float = 60.0) -> tuple[int, str]:
        """Read until the server closes; return code and reason."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    await self.next(timeout_s)
        except ConnectionClosed as error:
            assert error.rcvd is not None
            return error.rcvd.code, error.rcvd.reason
