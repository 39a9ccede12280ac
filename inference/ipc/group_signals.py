"""Sets which signals child processes leave to the supervisor, and lets them die with their parent."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable

from inference.ipc.shared_status import SharedStatus

_PR_SET_PDEATHSIG = 1
#: Signals that end a process that does not handle them. They mean nothing to this service, so it ignores
#: them.
WITHOUT_EFFECT = frozenset(
    {
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGALRM,
        signal.SIGVTALRM,
        signal.SIGPROF,
        signal.SIGIO,
        signal.SIGSTKFLT,
        *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
    }
)
#: Signals that a terminal, a shell or a person sends to the whole process group. The supervisor drains the
#: service; its children ignore them. SIGXCPU is not included: it ends decoders that compute for too long.
LEFT_TO_SUPERVISOR = WITHOUT_EFFECT | {
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGPIPE,
    signal.SIGPWR,
}
#: Signals that are blocked in a new child until it has called :func:`settle`.
BLOCKED_AT_START = LEFT_TO_SUPERVISOR | {signal.SIGTERM}


def die_with_parent(parent: int | None = None) -> None:
    """Make the kernel kill this process when its parent dies.

    ``parent`` is the process id of the parent: if it has died before this call, the process exits at once.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os._exit(0)


def settle() -> None:
    """Make this child die with its parent, and ignore the signals that only the supervisor acts on."""
    die_with_parent()
    for number in LEFT_TO_SUPERVISOR:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, BLOCKED_AT_START)


def on_sigterm(shared_status: SharedStatus, end: Callable[[], None]) -> Callable[[], None]:
    """Return a SIGTERM handler that calls ``end`` only if the supervisor has set the shared ``ending``.

    systemd and shells send SIGTERM to every process of the service at once. At that time workers still have
    requests in flight that need the calling process.
    """

    def handle() -> None:
        if shared_status.read("ending"):
            end()

    return handle
