"""Tests the converter threads: order, faults, and closing, which waits for running calls and drops others."""

from __future__ import annotations

import threading
import time
import weakref

import pytest

from streamer.scheduling.converter_threads import ConverterThreads
from tests.helpers.waiting import wait_for


def test_calls_begin_in_order() -> None:
    pool = ConverterThreads(1)
    seen: list[int] = []
    for number in range(50):
        pool.submit(seen.append, number)
    wait_for(lambda: len(seen) == 50, "all have run")
    assert seen == list(range(50))
    pool.close()


def test_calls_run_side_by_side() -> None:
    pool = ConverterThreads(2)
    three = threading.Barrier(3, timeout=60)
    pool.submit(three.wait)
    pool.submit(three.wait)
    three.wait()  # raises after 60 s unless both calls run at the same time
    pool.close()


def test_threads_come_with_the_first_calls() -> None:
    pool = ConverterThreads(4)
    assert not pool._threads
    for _ in range(10):
        pool.submit(time.sleep, 0)
    threads = list(pool._threads)
    assert len(threads) == 4
    assert all(thread.is_alive() for thread in threads)
    pool.close()
    assert not any(thread.is_alive() for thread in threads)


def test_a_fault_ends_no_thread(caplog: pytest.LogCaptureFixture) -> None:
    pool = ConverterThreads(1)
    done = threading.Event()

    def fail() -> None:
        raise ValueError("a fault")

    pool.submit(fail)
    pool.submit(done.set)
    assert done.wait(60)
    assert "a fault" in caplog.text
    pool.close()


def test_closing_waits_for_what_runs_and_forgets_what_waits() -> None:
    pool = ConverterThreads(1)
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()
    waited: list[str] = []

    def long() -> None:
        begun.set()
        may_end.wait(60)
        ended.set()

    pool.submit(long)
    assert begun.wait(60)
    for _ in range(5):
        pool.submit(waited.append, "never")
    closing = threading.Thread(target=pool.close)
    closing.start()
    wait_for(lambda: pool._closed and pool._queue.qsize() == 1, "only the request to end is queued")
    assert closing.is_alive()
    may_end.set()
    closing.join(60)
    assert ended.is_set()
    assert not waited


def test_a_thread_that_waits_keeps_nothing_of_its_last_call() -> None:
    class Frame:
        pass

    pool = ConverterThreads(1)
    frame = Frame()
    gone = weakref.ref(frame)
    pool.submit(id, frame)
    del frame
    wait_for(lambda: gone() is None, "the frame is let go")
    pool.close()


def test_after_the_end_nothing_is_taken() -> None:
    pool = ConverterThreads(1)
    pool.close()
    with pytest.raises(RuntimeError, match="stopped"):
        pool.submit(print)
    pool.close()


def test_the_end_may_meet_a_thread_that_takes_the_last_call() -> None:
    """Whether `close` or a thread is quicker, no error is raised and no thread is left."""
    for _ in range(200):
        pool = ConverterThreads(2)
        for _ in range(3):
            pool.submit(int)
        threads = list(pool._threads)
        pool.close()
        assert not any(thread.is_alive() for thread in threads)


def test_a_thread_that_cannot_be_started_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    pool = ConverterThreads(2)
    done = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            pool.submit(int)
    pool.submit(int)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        pool.submit(done.set)
    assert done.wait(60), "the thread that runs does it"
    pool.submit(int)
    assert len(pool._threads) == 2
    pool.close()
