"""Starts and stops the process of an engine for the supervisor, and holds its address and its slot."""

from __future__ import annotations

import signal
import socket
from collections.abc import Sequence

from inference.core.settings import InferenceSettings
from inference.ipc import unix_socket
from inference.ipc.forked_process import ForkedProcess
from inference.ipc.shared_status import EngineStatus, State

#: Exit codes after which a restart cannot help: model refused, device unavailable.
EXIT_MODEL_REFUSED = 4
FINAL_EXIT_CODES = frozenset({EXIT_MODEL_REFUSED, 5})


class InferenceHandle:
    """Runs one process of an engine at a time. Its address and its slot survive restarts."""

    def __init__(
        self,
        settings: InferenceSettings,
        status: EngineStatus,
        descriptors: Sequence[int] = (),
    ) -> None:
        """Create the listening socket, and clear the slot. Started processes inherit ``descriptors``."""
        self._inherited = tuple(descriptors)
        self._settings = settings
        self._listener: socket.socket = unix_socket.listen()
        self.status = status
        for field in status.FIELDS:
            status.post(field, 0.0)
        self._process = ForkedProcess("inference.engine.process")

    @property
    def distrusted(self) -> bool:
        """Whether a worker has received a malformed message from the running process."""
        return self.status.read("refused") > self._process.started_at

    @property
    def address(self) -> str:
        """Address to which workers connect; survives restarts."""
        return unix_socket.address_of(self._listener)

    @property
    def pid(self) -> int | None:
        """Process id of the fork, or of the server before the first fork; None when no process runs."""
        return self._process.pid

    @property
    def has_fork_server(self) -> bool:
        """Whether a fork server runs that :meth:`start` can use."""
        return self._process.has_server

    async def start_fork_server(self, environment: dict[str, str], output: int | None = None) -> None:
        """Start the fork server with this environment. Every inference process is a fork of it.

        The server and its forks write their logs to the descriptor ``output``.
        """
        listener_fd, status_fd = self._listener.fileno(), self.status.shared_status.fd
        await self._process.start_server(
            [self._settings.to_json(), str(listener_fd), str(status_fd), str(self.status.slot)],
            descriptors=(listener_fd, status_fd, *self._inherited),
            environment=environment,
            output=output,
        )

    def start(self) -> None:
        """Start a process. Call :meth:`start_fork_server` before if none runs."""
        self.status.post("state", State.STARTING)
        self.status.post("busy_since", 0.0)
        self._process.start()

    async def wait(self) -> int:
        """Wait for the process to end and return its exit code, negative for a signal."""
        code = await self._process.wait()
        self.status.post("state", State.DOWN)
        return code

    def signal(self, number: signal.Signals) -> None:
        """Send a signal if the process runs."""
        self._process.send_signal(number)

    async def stop(self, patience_s: float) -> None:
        """End the process, and then its fork server.

        The process gets SIGKILL if it does not serve yet, or after ``patience_s``. SIGTERM ends it at once if
        the replica ends, otherwise as soon as no worker is connected.
        """
        self.status.post("retiring", 1)
        serves = self.status.state is State.READY
        await self._process.stop(patience_s, signal.SIGTERM if serves else signal.SIGKILL)
        self.status.post("state", State.DOWN)

    def close(self) -> None:
        """Close the listening socket."""
        self._process.close()
        self._listener.close()
