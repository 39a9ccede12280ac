"""Full garbage collections run while they are cheap; with thousands of streams they are delayed."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from streamer.core.byte_budget import Holding
from streamer.http.connection_limits import ReadLimiter
from streamer.server.liveness import LONG_INTERVAL_S, MODERATE_INTERVAL_S, GcScheduler
from streamer.websocket.outbox import Outbox


@pytest.fixture(autouse=True)
def _thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def test_a_walk_waits_where_so_much_lives_that_it_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    walks = GcScheduler(0.0)
    assert gc.get_threshold()[2] > 1 << 20, "the interpreter does not walk by itself"
    monkeypatch.setattr(gc, "get_count", lambda: (0, 0, 11))
    clock = iter([0.0, 0.01])
    monkeypatch.setattr("streamer.server.liveness.time.thread_time", lambda: next(clock))
    assert walks.due(1.0, 100, after_peak=False)
    walks.collect(1.0, 100)
    assert walks.due(2.0, 150, after_peak=False), "15 ms"
    assert not walks.due(2.0, 1000, after_peak=False), "100 ms"
    assert walks.due(1.0 + LONG_INTERVAL_S, 1000, after_peak=False)
    assert not walks.due(2.0, 1000, after_peak=True)
    assert walks.due(1.0 + MODERATE_INTERVAL_S, 1000, after_peak=True)


def test_without_anything_new_there_is_no_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    walks = GcScheduler(0.0)
    monkeypatch.setattr(gc, "get_count", lambda: (0, 0, 1))
    assert not walks.due(LONG_INTERVAL_S * 2, 1, after_peak=False)
    assert walks.due(1.0, 1, after_peak=True)


class _Flow:
    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class _Owner:
    """Stands in for a connection: holds a limiter and an outbox, both of which refer back to it."""

    def __init__(self) -> None:
        self.limiter = ReadLimiter(100, _Flow())
        self.limiter.on_excess = self.limiter.on_full = self.limiter.on_handshake_end = self.told
        self.limiter.hold = self.hold
        self.outbox = Outbox(lambda _message: str(self), self.hold)

    def told(self) -> None: ...

    def hold(self) -> Holding:
        raise AssertionError("nothing large is held here")


def test_what_has_ended_needs_no_walk() -> None:
    gc.collect()
    gc.disable()
    try:
        owner = _Owner()
        ended = weakref.ref(owner)
        owner.limiter.close()
        owner.outbox.close()
        del owner
        assert ended() is None
    finally:
        gc.enable()
