"""Simulates a hostile inference process that sends a worker any message (S13 in docs/reliability.md)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

from inference.core.detection_params import DetectionParams
from inference.core.errors import InferenceLost
from inference.ipc import unix_socket as address
from inference.ipc.engine_set import EngineSet
from inference.ipc.engine_table import EngineTable
from inference.ipc.wire import Kind, Result, pack_text, unpack_submit

#: The model and version that an honest process announces.
MODEL: dict[str, Any] = {
    "name": "codes",
    "sha256": "0" * 64,
    "family": "yolo",
    "labels": ["qr_code", "barcode"],
    "input_width": 64,
    "input_height": 64,
    "placement": "centred",
    "pad_value": 114,
    "provider": "cpu",
    "buckets": [1],
    "conf_threshold": None,
}
VERSION: dict[str, Any] = {"version": "v1", "model": MODEL, "cost_ms": {"1": 5.0}}
HANDSHAKE: dict[str, Any] = {
    "versions": [VERSION],
    "parallel": 1,
    "inference_threads": 1,
    "prefetch_depth": 2,
}


class HostileChild:
    """Listens like the inference process and runs a worker's client; leaving ``async with`` closes both."""

    def __init__(self) -> None:
        self._listener = address.listen()
        self._listener.setblocking(False)
        self.client = EngineSet()
        self.client.apply(EngineTable.of_one(address.address_of(self._listener)))
        #: How often the worker has closed a connection because of what it received.
        self.refused = 0
        self.client.on_refused = self._count
        self.connection: socket.socket | None = None

    def _count(self, _slot: int) -> None:
        self.refused += 1

    async def __aenter__(self) -> HostileChild:
        await self.client.start()
        await self.accept()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()
        if self.connection is not None:
            self.connection.close()
        self._listener.close()

    async def accept(self) -> None:
        """Accept the worker's next connection."""
        if self.connection is not None:
            self.connection.close()
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(60):
            self.connection, _ = await loop.sock_accept(self._listener)
        self.connection.setblocking(False)

    def send(self, *messages: bytes) -> None:
        """Send messages; ignore it if the worker has closed the connection."""
        assert self.connection is not None
        for message in messages:
            try:
                self.connection.send(message)
            except (BrokenPipeError, ConnectionResetError):
                return

    async def receive(self) -> bytes:
        """Return the worker's next message."""
        assert self.connection is not None
        async with asyncio.timeout(60):
            return await asyncio.get_running_loop().sock_recv(self.connection, 65_536)

    async def greet(self, handshake: dict[str, Any] = HANDSHAKE) -> None:
        """Do the handshake as an honest process does; return when the worker has attached its memory."""
        self.send(*pack_text(Kind.HELLO, handshake))
        assert (await self.receive())[0] == Kind.ATTACH
        assert self.client.ready

    async def take_frame(self, answers: list[Result | InferenceLost]) -> int:
        """Let the worker submit a frame and return its request id. The outcome is appended to ``answers``."""
        model = self.client.models["v1"]
        ticket = self.client.acquire(answers.append)
        params = DetectionParams()
        self.client.submit(ticket, model, params, stream=1, interactive=False, deadline=1e12)
        return unpack_submit(await self.receive()).request_id

    async def until_refused(self, times: int = 1) -> None:
        """Wait until the worker has closed connections ``times`` times because of what it received."""
        async with asyncio.timeout(60):
            while self.refused < times:
                await asyncio.sleep(0.005)


def forged(request_id: int, message: bytes) -> bytes:
    """Return a RESULT message with its request id replaced; shorter messages stay as they are."""
    return message[:8] + request_id.to_bytes(8, "little") + message[16:] if len(message) >= 16 else message


def texts(values: Sequence[object]) -> list[str]:
    """Return names for parametrised cases."""
    return [repr(value)[:40] for value in values]
