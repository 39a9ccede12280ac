"""Signals that reach every process of the service at once, and that the supervisor alone acts on."""

from __future__ import annotations

import signal

#: These end a process that does not expect them, and mean nothing to this service: they have no effect.
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
#: What a terminal, a shell or a person sends to a whole group; none of these may end a child without its
#: drain. SIGXCPU is not among them, because it ends decoders that compute for too long.
LEFT_TO_SUPERVISOR = WITHOUT_EFFECT | {
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGPIPE,
    signal.SIGPWR,
}
