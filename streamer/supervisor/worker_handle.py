"""Starts a worker and tells how it is; its port and its channel outlive every process that serves them."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Sequence

from inference.ipc.child_process import spawn
from inference.ipc.shared_status import Board, Presence
from streamer.config.child_environment import ChildEnvironment
from streamer.supervisor.watchdog import Watched

#: No beat of a worker's loop for this long: it hangs.
BEAT_LIMIT_S = 5.0
#: From its start until it serves; imports take seconds where processors are busy.
START_LIMIT_S = 60.0


class WorkerHandle:
    """One worker process at a time."""

    def __init__(self, number: int, listener: socket.socket, board: Board) -> None:
        self.number = number
        self.listener = listener
        self._board = board
        #: Where the supervisor hands connections over, and the end that the worker reads. Both stay open
        #: here, so that what one worker has not read is there for the next.
        self.channel, self._worker_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.setblocking(False)
        #: None before the first start.
        self._process: asyncio.subprocess.Process | None = None
        self._started_at = 0.0

    async def start(
        self,
        arguments: Sequence[str],
        descriptors: Sequence[int],
        environment: ChildEnvironment,
        output: int,
    ) -> None:
        """Start a process with further ``arguments`` and ``descriptors``; it prints to ``output``."""
        self._board.post_worker(self.number, "beat", 0.0)
        self._board.post_worker(self.number, "presence", Presence.STARTING)
        self._started_at = time.monotonic()
        own = (self.listener.fileno(), self._board.fd)
        channel = self._worker_end.fileno()
        page, *addresses = arguments
        self._process = await spawn(
            "streamer.server.worker",
            [str(self.number), *map(str, own), page, str(channel), *addresses],
            descriptors=(*own, channel, *descriptors, *environment.descriptors),
            environment=environment.variables,
            output=output,
        )

    async def wait(self) -> int:
        """Wait for the process to end; returns its exit code, negative for a signal."""
        if self._process is None:
            raise RuntimeError("no worker was started")
        code = await self._process.wait()
        self._board.post_worker(self.number, "presence", Presence.DOWN)
        return code

    @property
    def pid(self) -> int | None:
        """Process id while there is a process."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal if the process still runs."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    def watched(self) -> Watched:
        """Return how it is watched."""
        return Watched(f"worker {self.number}", self._owes, lambda: self.pid, self._kill)

    def _owes(self) -> tuple[float, float, str]:
        beat = self._board.read_worker(self.number, "beat")
        if not beat:
            return self._started_at, START_LIMIT_S, "it does not serve"
        if self._board.read_worker(self.number, "presence") == Presence.STARTING:
            self._board.post_worker(self.number, "presence", Presence.SERVING)
        return beat, BEAT_LIMIT_S, "its loop does not turn"

    def _kill(self) -> None:
        self._board.post_worker(self.number, "presence", Presence.HUNG)
        self.signal(signal.SIGKILL)

    def close(self) -> None:
        """Close port and channel."""
        self.listener.close()
        self.channel.close()
        self._worker_end.close()
