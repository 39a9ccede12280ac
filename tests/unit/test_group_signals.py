"""The list of signals that drain the supervisor agrees with the list that its children leave to it."""

from __future__ import annotations

import signal

from inference.ipc.group_signals import LEFT_TO_SUPERVISOR, WITHOUT_EFFECT
from streamer.supervisor.signals import DRAINS

#: Signals that cannot be caught, or that report that the process itself is broken.
FATAL = {
    signal.SIGKILL,
    signal.SIGSTOP,
    signal.SIGILL,
    signal.SIGTRAP,
    signal.SIGABRT,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGSEGV,
    signal.SIGSYS,
}
#: Signals that, if not handled, do nothing or only stop or continue a process.
HARMLESS = {
    signal.SIGCHLD,
    signal.SIGCONT,
    signal.SIGTSTP,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGURG,
    signal.SIGWINCH,
}
#: Signals that Python ignores from its start.
IGNORED_BY_PYTHON = {signal.SIGPIPE, signal.SIGXFSZ}


def test_no_signal_ends_the_supervisor_without_a_drain() -> None:
    every = set(signal.valid_signals()) - FATAL - HARMLESS - IGNORED_BY_PYTHON
    assert every == DRAINS.keys() | WITHOUT_EFFECT
    assert not DRAINS.keys() & WITHOUT_EFFECT


def test_children_leave_all_of_them_to_the_supervisor_but_what_ends_them_alone() -> None:
    # The supervisor stops a child with SIGTERM; SIGXCPU ends decoders that compute for too long.
    own = {signal.SIGTERM, signal.SIGXCPU}
    assert (DRAINS.keys() | WITHOUT_EFFECT) - own | {signal.SIGPIPE} == LEFT_TO_SUPERVISOR
