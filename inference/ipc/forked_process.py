"""Starts the fork server of the inference process for the supervisor, and controls the fork that serves.

The supervisor signals a fork through its pidfd, so that no signal reaches another process that was given the
same process id. It kills a fork server that does not report how its fork has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Sequence

from inference.ipc.child_process import ChildProcess
from inference.ipc.fork_server import FORK, MESSAGE, Kind

#: Longest time from the end of a fork until the server has reported its exit code.
REPORT_S = 1.0


class ForkedProcess:
    """Runs one fork of ``python -m module`` at a time. All methods run on the event loop."""

    def __init__(self, module: str) -> None:
        self._server = ChildProcess(module)
        #: Socket to the server; None while no server runs.
        self._control: socket.socket | None = None
        #: Process id of the running fork, and its pidfd; None and -1 while no fork runs.
        self._pid: int | None = None
        self._watch = -1
        #: Future with the exit code of the last fork, or with None if the server ended before it reported the
        #: code. None before the first start.
        self._ended: asyncio.Future[int | None] | None = None
        self._report_timer: asyncio.TimerHandle | None = None
        #: Time of the last start, CLOCK_MONOTONIC.
        self.started_at = 0.0

    @property
    def has_server(self) -> bool:
        """Whether a fork server runs, or is loading its libraries."""
        return self._control is not None

    @property
    def pid(self) -> int | None:
        """Process id of the fork, or of the server before the first fork; None when no process runs."""
        return self._pid if self._pid is not None else self._server.pid

    async def start_server(
        self,
        arguments: Sequence[str],
        *,
        descriptors: Sequence[int],
        environment: dict[str, str],
        output: int | None = None,
    ) -> None:
        """Start a fork server, with its socket as the last argument.

        Forks inherit ``descriptors``, the environment, and ``output`` as their standard output and error.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                await self._server.start(
                    [*arguments, str(theirs.fileno())],
                    descriptors=(*descriptors, theirs.fileno()),
                    environment=environment,
                    output=output,
                )
            except BaseException:
                ours.close()
                raise
        ours.setblocking(False)
        self._control = ours
        asyncio.get_running_loop().add_reader(ours.fileno(), self._read)

    def start(self) -> None:
        """Fork a process as soon as the server has loaded its libraries. Call ``start_server`` before."""
        self.started_at = time.monotonic()
        self._ended = asyncio.get_running_loop().create_future()
        try:
            if self._control is None:
                raise BrokenPipeError("no fork server runs")
            self._control.send(FORK)
        except OSError:
            self._server_ended()

    async def wait(self) -> int:
        """Wait for the fork to end and return its exit code, negative for a signal.

        If the fork server ends first, and its fork with it, return the exit code of the server.
        """
        if self._ended is None:
            raise RuntimeError("no process was started")
        code = await asyncio.shield(self._ended)
        return await self._server.wait() if code is None else code

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the fork, or to the server before the fork exists."""
        if self._watch < 0:
            self._server.send_signal(number)
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._watch, number)

    async def stop(self, patience_s: float, first: signal.Signals = signal.SIGTERM) -> None:
        """Send ``first`` to the fork, and SIGKILL if it runs on for ``patience_s``; then end the server."""
        if self._ended is not None and not self._ended.done():
            self.send_signal(first)
            try:
                async with asyncio.timeout(patience_s):
                    await self.wait()
            except TimeoutError:
                self.send_signal(signal.SIGKILL)
        # The server has nothing to save. If a fork still runs, the kernel ends it together with the server.
        await self._server.stop(patience_s, signal.SIGKILL)

    def close(self) -> None:
        """Close the descriptors. The server ends when its fork has ended."""
        self._forget_fork()
        self._close_control()

    # -- messages of the server ----------------------------------------------------------------------

    def _read(self) -> None:
        control = self._control
        if control is None:
            return
        try:
            data, descriptors, _, _ = socket.recv_fds(control, MESSAGE.size, 1)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        if not data:
            self._server_ended()
            return
        kind, value = MESSAGE.unpack(data)
        if kind == Kind.FORKED:
            self._pid, (self._watch,) = value, descriptors
            asyncio.get_running_loop().add_reader(self._watch, self._fork_ended)
        else:
            self._settle(value)

    def _fork_ended(self) -> None:
        """Give the server `REPORT_S` to report how the fork has ended, and kill it if it does not."""
        if self._control is None:
            self._settle(None)
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._watch)
        self._report_timer = loop.call_later(REPORT_S, self._server.send_signal, signal.SIGKILL)

    def _server_ended(self) -> None:
        """Kill a fork that outlives the server, because two forks must never serve at the same time."""
        self._close_control()
        if self._watch < 0 or self._report_timer is not None:
            self._settle(None)
        else:
            self.send_signal(signal.SIGKILL)

    def _settle(self, code: int | None) -> None:
        self._forget_fork()
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(code)

    def _forget_fork(self) -> None:
        if self._report_timer is not None:
            self._report_timer.cancel()
            self._report_timer = None
        if self._watch >= 0:
            asyncio.get_running_loop().remove_reader(self._watch)
            os.close(self._watch)
        self._pid, self._watch = None, -1

    def _close_control(self) -> None:
        if self._control is not None:
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            self._control.close()
            self._control = None
