"""Starts a process of the service and settles it: it dies with its parent, which acts on signals for it."""

from __future__ import annotations

import asyncio
import ctypes
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1
#: What a terminal, a shell or a person sends to a whole group; in children only the supervisor's SIGTERM
#: counts, and none of these may end one without its drain.
LEFT_TO_SUPERVISOR = frozenset(
    {
        signal.SIGINT,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGALRM,
        signal.SIGVTALRM,
        signal.SIGPROF,
        signal.SIGIO,
        signal.SIGPIPE,
        signal.SIGPWR,
    }
)


async def spawn(
    module: str,
    arguments: Sequence[str],
    *,
    descriptors: Sequence[int],
    environment: dict[str, str],
    output: int | None = None,
) -> asyncio.subprocess.Process:
    """Start ``python -m module`` with these open descriptors; ``output`` is its standard output and error.

    Signals of `LEFT_TO_SUPERVISOR` wait until the child has called :func:`settle`, which ignores them.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, LEFT_TO_SUPERVISOR)
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
        signal.pthread_sigmask(signal.SIG_UNBLOCK, LEFT_TO_SUPERVISOR)


def settle() -> None:
    """Make this process die when its parent dies, and ignore what only the supervisor acts on."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for number in LEFT_TO_SUPERVISOR:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, LEFT_TO_SUPERVISOR)
