"""Handles the signals of the supervisor: each one that could kill it starts a drain, or is ignored."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable

from inference.ipc.group_signals import WITHOUT_EFFECT

log = logging.getLogger("streamer.supervisor")

#: Values of the shared field ``draining``: after `DRAIN_DELAY_S`, or immediately.
AFTER_DELAY = 1
AT_ONCE = 2
#: Signals that start a drain. After SIGTERM, and SIGHUP of a terminal that closes, balancers get time to
#: notice; after a key (SIGINT, SIGQUIT) or a limit (SIGXCPU, SIGPWR) they do not.
DRAINS = {
    signal.SIGTERM: AFTER_DELAY,
    signal.SIGHUP: AFTER_DELAY,
    signal.SIGINT: AT_ONCE,
    signal.SIGQUIT: AT_ONCE,
    signal.SIGXCPU: AT_ONCE,
    signal.SIGPWR: AT_ONCE,
}
#: A second one of these ends the service immediately. Not SIGHUP, which a closing terminal may send twice.
ENDS_AT_ONCE = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})


def on_signals(drain: Callable[[int], None], kill: Callable[[], None]) -> None:
    """Call ``drain`` with one of the values above on the first signal, and ``kill`` on a second one.

    Call it in the main thread, in the running loop. A signal that was ignored when the process started
    stays ignored, as ``nohup`` requires.
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
