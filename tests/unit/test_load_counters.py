"""Load counters estimate what clients ask for, and count an impatient client only once."""

from __future__ import annotations

import pytest

from streamer.scheduling.clients import Client
from streamer.scheduling.load_counters import MAX_CLIENTS, RETURN_S, LoadCounters

#: Long enough for every rate to settle.
SETTLED_S = 120


def refuse_streams(counters: LoadCounters, client: Client, *, every_s: float, seconds: float) -> None:
    """Refuse a stream of ``client`` every ``every_s`` seconds, and update the rates once a second."""
    due = 0.0
    for second in range(int(seconds)):
        while due < second + 1:
            counters.stream_refused(client)
            due += every_s
        counters.update(1.0)


def test_a_client_that_returns_as_told_counts_as_one_stream() -> None:
    counters = LoadCounters()
    refuse_streams(counters, Client("camera", 1), every_s=RETURN_S, seconds=SETTLED_S)
    assert counters.refused_streams == pytest.approx(1.0, abs=0.3)


def test_an_impatient_client_counts_as_one_stream_too() -> None:
    counters = LoadCounters()
    refuse_streams(counters, Client("impatient", 1), every_s=0.05, seconds=SETTLED_S)
    assert counters.refused_streams == 1.0


def test_a_client_with_many_streams_may_ask_for_as_many_again() -> None:
    counters, fleet = LoadCounters(), Client("fleet", 1)
    fleet.streams = 20
    refuse_streams(counters, fleet, every_s=RETURN_S / 8, seconds=SETTLED_S)
    assert counters.refused_streams == pytest.approx(8.0, rel=0.2)
    refuse_streams(counters, fleet, every_s=RETURN_S / 400, seconds=SETTLED_S)
    assert counters.refused_streams == 20.0


def test_the_attempts_of_one_client_at_all_workers_are_one_stream() -> None:
    for every_s in (RETURN_S, 0.05):
        workers = [LoadCounters(workers=4) for _ in range(4)]
        for number, counters in enumerate(workers):
            refuse_streams(counters, Client("camera", 1), every_s=4 * every_s, seconds=SETTLED_S + number)
        assert sum(counters.refused_streams for counters in workers) == pytest.approx(1.0, abs=0.4)


def test_many_clients_add_up() -> None:
    counters = LoadCounters()
    for second in range(SETTLED_S):
        for number in range(50):
            if second % int(RETURN_S) == number % int(RETURN_S):
                counters.stream_refused(Client(str(number), number))
        counters.update(1.0)
    assert counters.refused_streams == pytest.approx(50, rel=0.2)


def test_refusals_are_forgotten() -> None:
    counters, client = LoadCounters(), Client("gone", 1)
    refuse_streams(counters, client, every_s=1.0, seconds=SETTLED_S)
    for _ in range(SETTLED_S):
        counters.update(1.0)
    assert counters.refused_streams < 0.01
    assert counters._clients == {}


def test_posts_are_images_per_second_whatever_the_interval() -> None:
    counters, client = LoadCounters(), Client("poster", 1)
    for second in range(SETTLED_S):
        for _ in range(12):
            counters.post_queued(client)
        if second % 3 == 2:
            counters.update(3.0)
    assert counters.posts_fps == pytest.approx(12.0, rel=0.01)
    assert counters.refused_posts_fps == 0


@pytest.mark.parametrize(("refused", "counted"), [(4, 4.0), (500, 10.0)])
def test_refused_posts_count_with_at_most_what_the_client_has_had_admitted(
    refused: int, counted: float
) -> None:
    counters, client = LoadCounters(), Client("poster", 1)
    for _ in range(SETTLED_S):
        for _ in range(10):
            counters.post_queued(client)
        for _ in range(refused):
            counters.post_refused(client)
        counters.update(1.0)
    assert counters.refused_posts_fps == pytest.approx(counted, rel=0.02)


def test_a_client_of_which_no_post_was_admitted_counts_with_one_in_the_time_to_return() -> None:
    counters = LoadCounters()
    for _ in range(SETTLED_S):
        for _ in range(100):
            counters.post_refused(Client("poster", 1))
        counters.update(1.0)
    assert counters.refused_posts_fps == pytest.approx(1 / RETURN_S)


def test_the_number_of_clients_is_bounded() -> None:
    counters = LoadCounters()
    for number in range(3 * MAX_CLIENTS):
        counters.stream_refused(Client(str(number), number))
    assert len(counters._clients) == MAX_CLIENTS
    counters.update(1.0)
    assert counters.refused_streams <= MAX_CLIENTS + 1


def test_the_time_in_which_frames_wait_for_room_is_measured() -> None:
    counters = LoadCounters()
    counters.note_full(10.0, full=True)
    counters.note_full(10.5, full=True)
    assert counters.take_full_s(11.0) == pytest.approx(1.0)
    counters.note_full(11.25, full=False)
    counters.note_full(11.5, full=True)
    assert counters.take_full_s(12.0) == pytest.approx(0.75)
    counters.note_full(12.0, full=False)
    assert counters.take_full_s(13.0) == 0.0
