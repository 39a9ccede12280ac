"""The shared status tells a live loop from a hung or silent one."""

import os

from inference.ipc.shared_status import SharedStatus, State


def test_both_sides_see_the_same_page() -> None:
    board = SharedStatus()
    other = SharedStatus(os.dup(board.fd))
    board.post("state", State.READY)
    board.post("heartbeat", 12.5)
    assert (other.state, other.read("heartbeat")) == (State.READY, 12.5)
    other.close()
    board.close()


def test_a_fresh_beat_is_alive_and_an_old_one_is_not() -> None:
    board = SharedStatus()
    board.post("state", State.READY)
    board.post("heartbeat", 100.0)
    board.post("run_limit_s", 2.0)
    assert board.alive(101.0)
    assert not board.alive(106.0)
    board.close()


def test_a_run_beyond_its_limit_is_hung_even_while_the_loop_beats() -> None:
    board = SharedStatus()
    board.post("state", State.READY)
    board.post("heartbeat", 100.0)
    board.post("run_limit_s", 2.0)
    board.post("busy_since", 97.0)
    assert board.hung(100.0)
    assert not board.alive(100.0)
    board.post("busy_since", 0.0)
    assert board.alive(100.0)
    board.close()


def test_loading_needs_no_beat_but_a_dead_process_is_not_alive() -> None:
    board = SharedStatus()
    board.post("state", State.WARMING)
    assert board.alive(1e6)
    board.post("state", State.DOWN)
    assert not board.alive(1e6)
    board.close()
