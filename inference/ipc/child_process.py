"""Starts a child process of the supervisor with inherited descriptors, waits for it, and stops it.

The child calls `group_signals.settle` when it starts.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Sequence

from inference.ipc.group_signals import BLOCKED_AT_START


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

        Signals of the process group stay pending until the child has called `settle`.
        """
        self.started_at = time.monotonic()
        signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED_AT_START)
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
            # Unblock the signals instead of restoring the earlier mask: if another start is in progress, that
            # mask blocks them, too.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, BLOCKED_AT_START)

    async def wait(self) -> int:
        """Wait for the process to end and return its exit code, negative for a signal."""
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
