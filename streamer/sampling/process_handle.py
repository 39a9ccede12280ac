"""The sampling process as others see it: the handle with which the supervisor runs it, and its status."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Sequence
from enum import IntEnum

from inference.ipc import unix_socket
from inference.ipc.child_process import spawn
from inference.ipc.shared_status import Board, Presence
from streamer.config.child_environment import ChildEnvironment
from streamer.config.settings import Settings
from streamer.drift.shared_document import SharedDocument


class SamplingStatus(IntEnum):
    """Whether samples are taken: a number in the shared field ``sampling``, a word in ``/health``."""

    STARTING = 0
    ON = 1
    OFF = 2
    NO_SPOOL = 3


class SamplingProcessHandle:
    """Runs one sampling process at a time. When sampling is off there is none, and ``address`` is empty."""

    def __init__(self, settings: Settings, board: Board, descriptors: Sequence[int] = ()) -> None:
        """``descriptors`` are inherited by every process that is started."""
        self._inherited = tuple(descriptors)
        self.board = board
        #: Start of the process, CLOCK_MONOTONIC.
        self.started_at = 0.0
        #: None when sampling is off.
        self._listener = unix_socket.listen(socket.SOCK_STREAM) if settings.sampling else None
        #: Where the process publishes the drift status; survives restarts.
        self.drift_document = SharedDocument()
        #: None before the first start.
        self._process: asyncio.subprocess.Process | None = None
        board.post("sampling", SamplingStatus.STARTING if settings.sampling else SamplingStatus.OFF)

    @property
    def address(self) -> str:
        """Address to which workers connect; survives restarts."""
        return unix_socket.address_of(self._listener) if self._listener is not None else ""

    async def start(self, environment: ChildEnvironment, output: int | None = None) -> None:
        """Start a process with that environment, which writes its log to the descriptor ``output``."""
        if self._listener is None:
            raise RuntimeError("sampling is off")
        descriptors = (self._listener.fileno(), self.board.fd, self.drift_document.fd)
        self.board.post("sampling_beat", 0.0)
        self.board.post("sampling_presence", Presence.STARTING)
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
            raise RuntimeError("no sampling process was started")
        code = await self._process.wait()
        self.board.post("sampling", SamplingStatus.STARTING)
        self.board.post("sampling_presence", Presence.DOWN)
        return code

    @property
    def pid(self) -> int | None:
        """Process id, None when no process runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    def kill(self) -> None:
        """Kill the process if it runs."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def stop(self, patience_s: float) -> bool:
        """Terminate the process, and kill it after ``patience_s``. Returns False when it had to be killed."""
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
        """Close the listening socket and the shared document."""
        if self._listener is not None:
            self._listener.close()
        self.drift_document.close()
