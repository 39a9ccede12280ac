"""Keeps one worker for the supervisor: its port and its channel outlive each process that serves them."""

from __future__ import annotations

import signal
import socket
from collections.abc import Sequence

from inference.ipc.child_process import ChildProcess
from inference.ipc.shared_status import Presence, SharedStatus
from streamer.config.child_environment import ChildEnvironment
from streamer.supervisor.watchdog import Heartbeat, WatchedProcess

#: A worker whose event loop has not updated its heartbeat for this time is considered hung.
BEAT_LIMIT_S = 5.0
#: Longest time from the start of a worker until it serves; imports take seconds on a busy machine.
START_LIMIT_S = 60.0


class WorkerHandle:
    """Runs one worker process at a time on the same port and channel."""

    def __init__(self, number: int, listener: socket.socket, shared_status: SharedStatus) -> None:
        self.number = number
        self.listener = listener
        self._shared_status = shared_status
        #: The supervisor sends accepted connections through ``channel``; the worker reads the other end. Both
        #: ends stay open here, so that the next worker gets what the last one has not read.
        self.channel, self._worker_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.setblocking(False)
        self._process = ChildProcess("streamer.server.worker")

    async def start(
        self,
        arguments: Sequence[str],
        descriptors: Sequence[int],
        environment: ChildEnvironment,
        output: int,
    ) -> None:
        """Start a process with further ``arguments`` and ``descriptors``; it writes its log to ``output``."""
        self._shared_status.post_worker(self.number, "beat", 0.0)
        self._shared_status.post_worker(self.number, "ready", 0.0)
        self._shared_status.post_worker(self.number, "generation", 0.0)
        self._shared_status.post_worker(self.number, "presence", Presence.STARTING)
        own = (self.listener.fileno(), self._shared_status.fd)
        channel = self._worker_end.fileno()
        page, *addresses = arguments
        await self._process.start(
            [str(self.number), *map(str, own), page, str(channel), *addresses],
            descriptors=(*own, channel, *descriptors, *environment.descriptors),
            environment=environment.variables,
            output=output,
        )

    async def wait(self) -> int:
        """Wait for the process to end; returns its exit code, negative for a signal."""
        code = await self._process.wait()
        self._shared_status.post_worker(self.number, "presence", Presence.DOWN)
        return code

    @property
    def pid(self) -> int | None:
        """Process id, None when no process runs."""
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process if it runs."""
        self._process.send_signal(number)

    def watched(self) -> WatchedProcess:
        """Return this worker for the watchdog."""
        return WatchedProcess(f"worker {self.number}", self._heartbeat, lambda: self.pid, self._kill)

    def _heartbeat(self) -> Heartbeat:
        beat = self._shared_status.read_worker(self.number, "beat")
        if not beat:
            return Heartbeat(self._process.started_at, START_LIMIT_S, "it does not serve")
        if self._shared_status.read_worker(self.number, "presence") == Presence.STARTING:
            self._shared_status.post_worker(self.number, "presence", Presence.SERVING)
        return Heartbeat(beat, BEAT_LIMIT_S, "its loop has stopped")

    def _kill(self) -> None:
        self._shared_status.post_worker(self.number, "presence", Presence.HUNG)
        self.signal(signal.SIGKILL)

    def close(self) -> None:
        """Close the port and the channel."""
        self.listener.close()
        self.channel.close()
        self._worker_end.close()
