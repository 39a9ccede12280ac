"""A child process of the supervisor: spawned with open descriptors, awaited, signalled and stopped.

The child's side is here too: it dies with its parent, and leaves signals of the process group to it.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable, Sequence

from inference.ipc.group_signals import LEFT_TO_SUPERVISOR, die_with_parent
from inference.ipc.shared_status import SharedStatus

#: Signals that are blocked until a new child has set its dispositions.
_BLOCKED_AT_START = LEFT_TO_SUPERVISOR | {signal.SIGTERM}


class ChildProcess:
    """Runs ``python -m module``, one process at a time."""

    def __init__(self, module: str) -> None:
        self._module = module
        #: None before the first start.
        self._process: asyncio.subprocess.Process | None = None
        #: Time of the last start, CLOCK_MONOTONIC.
        self.started_at = 0.0

    @property
    def pid(self) -> int | None:
        """Process id, None when no process runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(
        self,
        arguments: Sequence[str],
        *,
        descriptors: Sequence[int],
        environment: dict[str, str],
        output: int | None = None,
    ) -> None:
        """Start a process that inherits ``descriptors``; ``output`` is its standard output and error.

        Signals of the process group stay pending until the child has called :func:`settle`.
        """
        self.started_at = time.monotonic()
        signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED_AT_START)
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                self._module,
                *arguments,
                pass_fds=tuple(descriptors),
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        finally:
            # The earlier mask is not restored: during another start it has these signals blocked.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _BLOCKED_AT_START)

    async def wait(self) -> int:
        """Wait for the process to end; returns its exit code, negative for a signal."""
        if self._process is None:
            raise RuntimeError(f"{self._module} was not started")
        return await self._process.wait()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal if the process runs."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def stop(self, patience_s: float, first: signal.Signals = signal.SIGTERM) -> bool:
        """Send ``first``, and SIGKILL after ``patience_s``. Returns False when it had to be killed."""
        if self.pid is None:
            return True
        self.send_signal(first)
        try:
            async with asyncio.timeout(patience_s):
                await self.wait()
        except TimeoutError:
            self.send_signal(signal.SIGKILL)
            return False
        return True


def settle() -> None:
    """Make this child die with its parent, and ignore the signals that only the supervisor acts on."""
    die_with_parent()
    for number in LEFT_TO_SUPERVISOR:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _BLOCKED_AT_START)


def on_sigterm(shared_status: SharedStatus, end: Callable[[], None]) -> Callable[[], None]:
    """Return a SIGTERM handler that calls ``end`` only if the supervisor has set the shared ``ending``.

    systemd and shells send SIGTERM to every process of the service at once. At that time workers still have
    requests in flight that need the calling process.
    """

    def handle() -> None:
        if shared_status.read("ending"):
            end()

    return handle
