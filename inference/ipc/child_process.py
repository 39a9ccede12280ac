"""Starts a process of the service and settles it: it dies with its parent, which acts on signals for it."""

from __future__ import annotations

import asyncio
import ctypes
import signal
import sys
from collections.abc import Callable, Sequence

from inference.ipc.group_signals import LEFT_TO_SUPERVISOR
from inference.ipc.shared_status import Board

_PR_SET_PDEATHSIG = 1
#: Until a new child has said what it does on them.
_HELD_BACK = LEFT_TO_SUPERVISOR | {signal.SIGTERM}


async def spawn(
    module: str,
    arguments: Sequence[str],
    *,
    descriptors: Sequence[int],
    environment: dict[str, str],
    output: int | None = None,
) -> asyncio.subprocess.Process:
    """Start ``python -m module`` with these open descriptors; ``output`` is its standard output and error.

    Signals of a group wait until the child has called :func:`settle`, which ignores all but SIGTERM.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
    try:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *arguments,
            pass_fds=tuple(descriptors),
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    finally:
        # Not the mask of before: another start may be under way, which would leave them blocked.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD_BACK)


def settle() -> None:
    """Make this process die when its parent dies, and ignore what only the supervisor acts on."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for number in LEFT_TO_SUPERVISOR:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD_BACK)


def when_told_to_end(board: Board, end: Callable[[], None]) -> Callable[[], None]:
    """Return what to do on SIGTERM: call ``end``, if the supervisor has said on the board that it is time.

    systemd and shells send SIGTERM to every process of the service at once. Then the workers still have work
    in flight, which needs the process that calls this.
    """

    def receive() -> None:
        if board.read("ending"):
            end()

    return receive
