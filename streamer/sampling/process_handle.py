"""Starts an observer process; the supervisor decides when. Its address outlives every one of them."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Sequence

from inference.ipc import unix_socket as address
from inference.ipc.child_process import spawn
from inference.ipc.shared_status import Board, Presence
from streamer.config.child_environment import ChildEnvironment
from streamer.config.settings import Settings
from streamer.drift.shared_document import SharedDocument
from streamer.sampling.sampling_status import Standing


class ObserverHandle:
    """One observer at a time. Without sampling there is none, and ``address`` is empty."""

    def __init__(self, settings: Settings, board: Board, descriptors: Sequence[int] = ()) -> None:
        """``descriptors`` are inherited by every process that is started."""
        self._inherited = tuple(descriptors)
        self.board = board
        #: Start of the process, CLOCK_MONOTONIC.
        self.started_at = 0.0
        #: None where sampling is off.
        self._listener = address.listen(socket.SOCK_STREAM) if settings.sampling else None
        #: Where it posts how drift is; stays the same over restarts.
        self.page = SharedDocument()
        #: None before the first start.
        self._process: asyncio.subprocess.Process | None = None
        board.post("sampling", Standing.STARTING if settings.sampling else Standing.OFF)

    @property
    def address(self) -> str:
        """What workers connect to; stays the same over restarts."""
        return address.address_of(self._listener) if self._listener is not None else ""

    async def start(self, environment: ChildEnvironment, output: int | None = None) -> None:
        """Start a process that sees ``environment`` and prints to ``output``."""
        if self._listener is None:
            raise RuntimeError("sampling is off")
        descriptors = (self._listener.fileno(), self.board.fd, self.page.fd)
        self.board.post("observer_beat", 0.0)
        self.board.post("observer_presence", Presence.STARTING)
        self.started_at = time.monotonic()
        self._process = await spawn(
            "streamer.sampling.process",
            [str(fd) for fd in descriptors],
            descriptors=(*descriptors, *environment.descriptors, *self._inherited),
            environment=environment.variables,
            output=output,
        )

    async def wait(self) -> int:
        """Wait for the process to end; returns its exit code, negative for a signal."""
        if self._process is None:
            raise RuntimeError("no observer was started")
        code = await self._process.wait()
        self.board.post("sampling", Standing.STARTING)
        self.board.post("observer_presence", Presence.DOWN)
        return code

    @property
    def pid(self) -> int | None:
        """Process id while there is a process."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    def kill(self) -> None:
        """End the process at once if it still runs."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def stop(self, patience_s: float) -> bool:
        """End the process, hard after ``patience_s``. False when it had to be killed."""
        process = self._process
        if process is None or process.returncode is not None:
            return True
        self.board.post("ending", 1)
        process.terminate()
        try:
            async with asyncio.timeout(patience_s):
                await process.wait()
        except TimeoutError:
            process.kill()
            return False
        return True

    def close(self) -> None:
        """Give the address up."""
        if self._listener is not None:
            self._listener.close()
        self.page.close()
