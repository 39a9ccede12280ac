"""The shared status shows whether a loop is alive, hung or silent."""

import os

from inference.ipc.shared_status import SharedStatus, State


def test_both_sides_see_the_same_page() -> None:
    shared_status = SharedStatus()
    engine = shared_status.engine(0)
    other = SharedStatus(os.dup(shared_status.fd))
    engine.post("state", State.READY)
    engine.post("heartbeat", 12.5)
    assert (other.state, other.engine(0).read("heartbeat")) == (State.READY, 12.5)
    other.close()
    shared_status.close()


def test_a_fresh_beat_is_alive_and_an_old_one_is_not() -> None:
    shared_status = SharedStatus()
    engine = shared_status.engine(0)
    engine.post("state", State.READY)
    engine.post("heartbeat", 100.0)
    engine.post("run_limit_s", 2.0)
    assert engine.alive(101.0)
    assert not engine.alive(106.0)
    shared_status.close()


def test_a_run_beyond_its_limit_is_hung_even_while_the_loop_beats() -> None:
    shared_status = SharedStatus()
    engine = shared_status.engine(0)
    engine.post("state", State.READY)
    engine.post("heartbeat", 100.0)
    engine.post("run_limit_s", 2.0)
    engine.post("busy_since", 97.0)
    assert engine.hung(100.0)
    assert not engine.alive(100.0)
    engine.post("busy_since", 0.0)
    assert engine.alive(100.0)
    shared_status.close()


def test_loading_needs_no_beat_but_a_dead_process_is_not_alive() -> None:
    shared_status = SharedStatus()
    engine = shared_status.engine(0)
    engine.post("state", State.WARMING)
    assert engine.alive(1e6)
    engine.post("state", State.DOWN)
    assert not engine.alive(1e6)
    shared_status.close()
