"""The time of a wake-up is measured with a real process, which ends with the measurement."""

from __future__ import annotations

import psutil

from streamer.model_tools.wake_up import measure_wake_up


def test_a_wake_up_is_measured_and_the_other_process_ends() -> None:
    before = psutil.Process().children()
    # A machine that runs both processes on one core, without a pause, may need no time besides the work.
    assert 0 <= measure_wake_up(trips=5, pause_s=0.001) < 60
    assert psutil.Process().children() == before
