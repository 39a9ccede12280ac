"""A real service drains on a signal or ignores it, whichever process of its group receives the signal."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from tests.helpers.service import Service, is_dead
from tests.helpers.waiting import wait_for


@pytest.fixture(autouse=True)
def _signals_as_from_a_terminal() -> Iterator[None]:
    """Set the default action of SIGHUP, which the service inherits, as from a terminal.

    Under `nohup` the service would inherit an ignored SIGHUP and ignore it, too.
    """
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT, signal.SIGXCPU, signal.SIGPWR])
def test_a_signal_that_used_to_kill_drains(number: signal.Signals, full: bool) -> None:
    if number is not signal.SIGQUIT and not full:
        pytest.skip("each starts a service; `--full` sends them all, and SIGHUP is sent below")
    with Service({"SAMPLING": "False", "WORKERS": "1"}) as service:
        children = service.supervisor.children(recursive=True)
        service.signal(number)
        assert service.wait() == 0
        assert f"{number.name}: draining" in service.log
        # Decoders are children of the workers and end a moment after them.
        wait_for(lambda: all(is_dead(child) for child in children))


def test_signals_that_mean_nothing_here_end_no_process() -> None:
    with Service({"LOG_LEVEL": "info"}) as service:
        processes = [service.supervisor, *service.supervisor.children(), service.inference]
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGPIPE, signal.SIGVTALRM):
            for process in processes:
                process.send_signal(number)
        for child in processes[1:]:  # a terminal sends these to the whole process group
            for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
                child.send_signal(number)
        wait_for(lambda: f"signal {int(signal.SIGALRM)} has no effect" in service.log)
        time.sleep(0.5)
        assert [process for process in processes if is_dead(process)] == []
        assert service.get("/health")[0] == 200
        assert service.metric("object_detection_process_restarts_total") == 0


def test_a_terminal_that_closes_and_says_so_twice_still_gets_a_drain() -> None:
    with Service({"SAMPLING": "False"}) as service:
        service.signal(signal.SIGHUP)
        service.signal(signal.SIGHUP)
        assert service.wait() == 0
        assert "SIGHUP: draining" in service.log
        assert "stopping at once" not in service.log
