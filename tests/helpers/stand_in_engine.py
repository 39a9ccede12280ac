"""Stands in for an engine: listens for a worker, announces models, and answers frames when a test says so."""

from __future__ import annotations

import asyncio
import copy
import os
import socket
from typing import Any

from inference.core.detections import NO_BOXES
from inference.ipc import unix_socket as address
from inference.ipc import wire
from inference.ipc.engine_table import EngineEntry
from inference.ipc.wire import Kind, Result, Status, Submit
from tests.helpers.hostile_child import HANDSHAKE


def handshake(*, sha256: str = "0" * 64, width: int = 64, run_ms: float = 5.0) -> dict[str, Any]:
    """Return the handshake of an engine that serves v1."""
    found = copy.deepcopy(HANDSHAKE)
    found["versions"][0]["model"] |= {"sha256": sha256, "input_width": width}
    found["versions"][0]["cost_ms"] = {"1": run_ms}
    return found


class StandInEngine:
    """Plays the engine of one slot. Call `accept` and `greet`, and `close` at the end."""

    def __init__(self, slot: int, index: int = 0) -> None:
        self._listener = address.listen()
        self._listener.setblocking(False)
        self.entry = EngineEntry(slot, index, "cpu", address.address_of(self._listener))
        self.connection: socket.socket | None = None
        #: Frames that arrived and were not answered, oldest first.
        self.frames: list[Submit] = []
        #: Number and inode of each ring that is attached.
        self.rings: dict[int, int] = {}
        #: Whether the worker has closed the connection.
        self.closed = False

    async def accept(self) -> None:
        """Accept the worker's connection."""
        async with asyncio.timeout(60):
            self.connection, _ = await asyncio.get_running_loop().sock_accept(self._listener)
        self.connection.setblocking(False)
        self.closed = False

    async def serve(self, message: dict[str, Any] | None = None) -> None:
        """Accept, announce models, and wait until the worker has attached its ring."""
        await self.accept()
        for part in wire.pack_text(Kind.HELLO, handshake() if message is None else message):
            self._sent(part)
        async with asyncio.timeout(60):
            while not self.rings and not self.closed:
                await asyncio.sleep(0.002)
                self.read()

    def read(self) -> list[Submit]:
        """Read all messages that have arrived, and return the frames that were not answered."""
        assert self.connection is not None
        while not self.closed:
            try:
                data, descriptors, _, _ = socket.recv_fds(self.connection, wire.MAX_MESSAGE_BYTES, 1)
            except BlockingIOError:
                break
            except ConnectionError:
                data, descriptors = b"", []
            if not data:
                self.closed = True
            elif data[0] == Kind.ATTACH:
                message = wire.TextAssembler().feed(data)
                assert message is not None
                self.rings[message["number"]] = os.fstat(descriptors[0]).st_ino
                os.close(descriptors[0])
            elif data[0] == Kind.DETACH:
                del self.rings[wire.unpack_ring(data)]
            elif data[0] == Kind.SUBMIT:
                submit = wire.unpack_submit(data)
                assert submit.ring in self.rings
                self.frames.append(submit)
            elif data[0] == Kind.CANCEL:
                self.answer(status=Status.CANCELLED)
        return self.frames

    def answer(self, *, status: Status = Status.OK) -> None:
        """Answer the oldest frame."""
        frame = self.frames.pop(0)
        self._sent(wire.pack_result(Result(frame.request_id, status, NO_BOXES, 1.0, 1.0, 1.0, 1)))

    def die(self) -> None:
        """End the process: close its connection. `accept` serves the worker's next one."""
        assert self.connection is not None
        self.connection.close()
        self.frames.clear()
        self.rings.clear()

    def close(self) -> None:
        """Close everything."""
        if self.connection is not None:
            self.connection.close()
        self._listener.close()

    def _sent(self, message: bytes) -> None:
        assert self.connection is not None
        self.connection.send(message)
