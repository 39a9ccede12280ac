"""Starts an inference process and tells how it is; the supervisor decides what to do about it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Sequence

from inference.core.settings import InferenceSettings
from inference.ipc import unix_socket as address
from inference.ipc.child_process import spawn
from inference.ipc.shared_status import Board, State

#: Exit codes of the process that a restart cannot mend: model refused, device unavailable.
EXIT_MODEL_REFUSED = 4
FINAL_EXIT_CODES = frozenset({EXIT_MODEL_REFUSED, 5})


class InferenceHandle:
    """One inference process at a time, on an address and a board that outlive it."""

    def __init__(self, settings: InferenceSettings, descriptors: Sequence[int] = ()) -> None:
        """``descriptors`` are inherited by every process that is started."""
        self._inherited = tuple(descriptors)
        self._settings = settings
        self._listener: socket.socket = address.listen()
        self.board = Board()
        #: None before the first start.
        self._process: asyncio.subprocess.Process | None = None
        #: Start of that process, CLOCK_MONOTONIC.
        self._started_at = 0.0

    @property
    def distrusted(self) -> bool:
        """Whether a worker has read something from this process that an honest one would not send."""
        return self.board.read("refused") > self._started_at

    @property
    def address(self) -> str:
        """What workers connect to; stays the same over restarts."""
        return address.address_of(self._listener)

    @property
    def pid(self) -> int | None:
        """Process id while there is a process."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self, environment: dict[str, str], output: int | None = None) -> None:
        """Start a process. ``environment`` is the whole of what it sees, ``output`` where it prints."""
        self.board.post("state", State.STARTING)
        self.board.post("busy_since", 0.0)
        self._started_at = time.monotonic()
        listener_fd, board_fd = self._listener.fileno(), self.board.fd
        self._process = await spawn(
            "inference.engine.process",
            [self._settings.to_json(), str(listener_fd), str(board_fd)],
            descriptors=(listener_fd, board_fd, *self._inherited),
            environment=environment,
            output=output,
        )

    async def wait(self) -> int:
        """Wait for the process to end; returns its exit code, negative for a signal."""
        if self._process is None:
            raise RuntimeError("no inference process was started")
        code = await self._process.wait()
        self.board.post("state", State.DOWN)
        return code

    def signal(self, number: signal.Signals) -> None:
        """Send a signal if the process still runs."""
        if self._process is not None and self._process.returncode is None:
            os.kill(self._process.pid, number)

    async def stop(self, patience_s: float) -> None:
        """End the process: at once where it does not serve yet, hard after ``patience_s``."""
        self.board.post("ending", 1)
        self.signal(signal.SIGTERM if self.board.state is State.READY else signal.SIGKILL)
        with contextlib.suppress(TimeoutError, RuntimeError):
            async with asyncio.timeout(patience_s):
                await self.wait()
        self.signal(signal.SIGKILL)

    def close(self) -> None:
        """Give up the address and the board."""
        self._listener.close()
        self.board.close()
