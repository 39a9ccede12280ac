"""A TCP relay between client and service that delays, throttles, resets, half-closes and drops data.

`tests.helpers.udp_proxy` does the same to the datagrams of WebRTC.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from types import TracebackType
from typing import Self

_CHUNK_BYTES = 1 << 14
#: Largest number of chunks in transit in one direction of a connection: a slow network blocks the sender.
_IN_TRANSIT = 64


class FaultProxy:
    """Listens on a free port of the loopback interface and relays to ``port``.

    All faults may be set before the start and changed while it runs. ``delay_s`` and ``jitter_s`` apply to
    each direction; the jitter is uniform in both signs. ``bytes_per_s`` limits each direction of a connection
    (0: no limit). ``resets`` is the share of connections that are reset within their first
    ``reset_within_bytes``.
    """

    def __init__(
        self,
        port: int,
        *,
        delay_s: float = 0.0,
        jitter_s: float = 0.0,
        bytes_per_s: float = 0.0,
        resets: float = 0.0,
        reset_within_bytes: int = 1 << 16,
        seed: int = 1,
    ) -> None:
        self.target = port
        self.port = 0
        self.delay_s = delay_s
        self.jitter_s = jitter_s
        self.bytes_per_s = bytes_per_s
        self.resets = resets
        self.reset_within_bytes = reset_within_bytes
        self.connections = 0
        #: Number of connections that were reset on purpose.
        self.reset = 0
        #: While set, new connections are closed at once.
        self.refusing = False
        #: While set, nothing passes in either direction and no side is told, as behind a dead router.
        self.blackholed = False
        self._random = random.Random(seed)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def cut(self) -> None:
        """Abort every connection without a closing handshake."""
        for writer in list(self._writers):
            writer.transport.abort()

    def half_close(self) -> None:
        """Send an end of file on every connection that allows it; the opposite direction stays open."""
        for writer in list(self._writers):
            if writer.can_write_eof() and not writer.is_closing():
                writer.write_eof()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self.refusing:
            writer.transport.abort()
            return
        self.connections += 1
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        doomed = self._random.random() < self.resets
        reset_after = self._random.randrange(1, self.reset_within_bytes) if doomed else 0
        try:
            # The tasks are cancelled at the end; without this, asyncio would log that for each connection.
            with contextlib.suppress(asyncio.CancelledError):
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._relay(reader, back, reset_after))
                    group.create_task(self._relay(there, writer, 0))
        finally:
            self._writers -= {writer, back}
            for side in (writer, back):
                side.transport.abort()

    async def _relay(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, reset_after_bytes: int
    ) -> None:
        """Relay one direction. Its chunks keep their order, whatever the delay of each."""
        transit: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_IN_TRANSIT)
        delivering = asyncio.create_task(self._deliver(transit, sink))
        loop, passed = asyncio.get_running_loop(), 0
        try:
            with contextlib.suppress(ConnectionError):
                while data := await source.read(_CHUNK_BYTES):
                    passed += len(data)
                    if reset_after_bytes and passed >= reset_after_bytes:
                        self.reset += 1
                        return
                    jitter_s = self._random.uniform(-self.jitter_s, self.jitter_s)
                    await transit.put((loop.time() + max(0.0, self.delay_s + jitter_s), data))
            await transit.put((loop.time(), b""))
            await delivering
        finally:
            delivering.cancel()
            sink.transport.abort()

    async def _deliver(self, transit: asyncio.Queue[tuple[float, bytes]], sink: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):
            while True:
                due, data = await transit.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                if self.bytes_per_s:
                    await asyncio.sleep(len(data) / self.bytes_per_s)
                while self.blackholed:
                    await asyncio.sleep(0.05)
                if not data:
                    return
                sink.write(data)
                await sink.drain()
