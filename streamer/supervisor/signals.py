"""Handles the signals that could kill the supervisor: each one either starts a drain or has no effect."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable

from inference.ipc.group_signals import WITHOUT_EFFECT

log = logging.getLogger("streamer.supervisor")

#: Values of the shared field ``draining``: the workers drain after `DRAIN_DELAY_S`, or immediately.
AFTER_DELAY = 1
AT_ONCE = 2
#: Signals that start a drain. SIGTERM and SIGHUP (a terminal closes) leave load balancers time to notice it.
#: Keys (SIGINT, SIGQUIT), an exceeded CPU limit (SIGXCPU) and a power failure (SIGPWR) do not.
DRAINS = {
    signal.SIGTERM: AFTER_DELAY,
    signal.SIGHUP: AFTER_DELAY,
    signal.SIGINT: AT_ONCE,
    signal.SIGQUIT: AT_ONCE,
    signal.SIGXCPU: AT_ONCE,
    signal.SIGPWR: AT_ONCE,
}
#: Signals that kill the workers if a drain has begun. SIGHUP is not one of them, because a closing terminal
#: may send it twice.
ENDS_AT_ONCE = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})


def on_signals(drain: Callable[[int], None], kill: Callable[[], None]) -> None:
    """Call ``drain`` on the first signal with its value in `DRAINS`, and ``kill`` on a later `ENDS_AT_ONCE`.

    Call this function in the main thread, in the running loop. If the process started with one of the other
    signals ignored, such as SIGHUP by ``nohup``, that signal stays ignored.
    """
    loop = asyncio.get_running_loop()
    draining = False

    def receive(number: signal.Signals) -> None:
        nonlocal draining
        if not draining:
            draining = True
            log.info("%s: draining (SIGTERM or Ctrl-C to stop at once)", number.name)
            drain(DRAINS[number])
        elif number in ENDS_AT_ONCE:
            log.info("%s: stopping at once", number.name)
            kill()

    for number in DRAINS:
        if number in ENDS_AT_ONCE or signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, receive, number)
    for ignored in WITHOUT_EFFECT:
        loop.add_signal_handler(ignored, log.info, "signal %d has no effect here", int(ignored))
