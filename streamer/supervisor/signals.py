"""Which signals end the service and how: every one that could kill it drains it first, or is ignored."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable

from inference.ipc.group_signals import WITHOUT_EFFECT

log = logging.getLogger("streamer.supervisor")

#: Values of the shared field ``draining``: after `DRAIN_DELAY_S`, or at once.
AFTER_DELAY = 1
AT_ONCE = 2
#: What drains the service. A terminal that closes (SIGHUP) leaves balancers the time to notice; a person
#: (SIGINT, SIGQUIT) or a limit (SIGXCPU, SIGPWR) does not.
DRAINS = {
    signal.SIGTERM: AFTER_DELAY,
    signal.SIGHUP: AFTER_DELAY,
    signal.SIGINT: AT_ONCE,
    signal.SIGQUIT: AT_ONCE,
    signal.SIGXCPU: AT_ONCE,
    signal.SIGPWR: AT_ONCE,
}
#: Repeated, these end the service without waiting; a closing terminal may send SIGHUP more than once.
INSISTS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})


def on_signals(drain: Callable[[int], None], kill: Callable[[], None]) -> None:
    """Call ``drain`` with how on the first signal that ends the service, ``kill`` on one that insists.

    Call it in the main thread, in the running loop. A signal that was ignored when the process started
    stays ignored: ``nohup`` means it.
    """
    loop = asyncio.get_running_loop()
    draining = False

    def receive(number: signal.Signals) -> None:
        nonlocal draining
        if not draining:
            draining = True
            log.info("%s: draining (SIGTERM or Ctrl-C to stop at once)", number.name)
            drain(DRAINS[number])
        elif number in INSISTS:
            log.info("%s: stopping at once", number.name)
            kill()

    for number in DRAINS:
        if number in INSISTS or signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, receive, number)
    for ignored in WITHOUT_EFFECT:
        loop.add_signal_handler(ignored, log.info, "signal %d has no effect here", int(ignored))
