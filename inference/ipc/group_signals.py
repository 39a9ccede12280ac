"""Signals that reach every process of the service at once, and that the supervisor alone acts on."""

from __future__ import annotations

import signal

#: What a terminal, a shell or a person sends to a whole group; none of these may end a child without its
#: drain. SIGXCPU is not among them, because it ends decoders that compute for too long.
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
        signal.SIGSTKFLT,
        *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
    }
)
