"""The sender never blocks its caller, and counts the candidates that it loses."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from inference.ipc import unix_socket as address
from streamer.sampling import sample_sender as module
from streamer.sampling.candidate import CONFIRMED, unpack_candidate
from streamer.sampling.sample_sender import MAX_WAITING, SampleSender
from tests.helpers.candidates import candidate
from tests.helpers.waiting import wait_for


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with address.listen(socket.SOCK_STREAM) as opened:
        yield opened


@pytest.fixture
def lost() -> Counter[str]:
    return Counter()


def counting(lost: Counter[str]):  # type: ignore[no-untyped-def]
    def count(reason: str) -> None:
        lost[reason] += 1

    return count


def read_one(connection: socket.socket) -> int:
    """Read one candidate, confirm it and return its sequence number."""
    with connection.makefile("rb") as stream:
        size = int.from_bytes(stream.read(4), "little")
        seq = unpack_candidate(stream.read(size)).seq
    connection.sendall(CONFIRMED)
    return seq


def test_candidates_arrive_in_order(listener: socket.socket, lost: Counter[str]) -> None:
    sender = SampleSender(address.address_of(listener), counting(lost))
    sender.start()
    for seq in range(3):
        assert sender.submit(candidate(0.5, seq=seq))
    connection, _ = listener.accept()
    with connection:
        assert [read_one(connection) for _ in range(3)] == [0, 1, 2]
        sender.close()
        assert connection.recv(1) == b""
    assert not lost


def test_a_candidate_that_a_dying_sampling_process_has_not_decided_about_goes_to_its_successor(
    listener: socket.socket, lost: Counter[str]
) -> None:
    sender = SampleSender(address.address_of(listener), counting(lost))
    sender.start()
    sender.submit(candidate(0.5, seq=1))
    connection, _ = listener.accept()
    with connection:  # the process dies before it reads, which resets the connection
        assert connection.recv(1, socket.MSG_PEEK)
    connection, _ = listener.accept()
    with connection:  # its successor dies while it reads; after two failures the candidate counts as lost
        assert connection.recv(4)
    wait_for(lambda: lost["no_observer"] == 1)
    sender.submit(candidate(0.5, seq=2))
    connection, _ = listener.accept()
    with connection:
        wait_for(lambda: bool(connection.recv(1, socket.MSG_PEEK)))
    connection, _ = listener.accept()
    with connection:
        assert read_one(connection) == 2
        sender.close()
    assert lost == {"no_observer": 1}


def test_a_stalled_sampling_process_costs_candidates_and_no_time(
    listener: socket.socket, lost: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSE_S", 0.1)
    sender = SampleSender(address.address_of(listener), counting(lost))
    sender.start()  # no process accepts the connection or reads
    large = candidate(0.5, data=b"x" * (1 << 20))
    taken = sum(sender.submit(large) for _ in range(200))  # the test would not end if this waited
    assert taken <= MAX_WAITING + 3  # plus what the socket holds
    assert lost["busy"] == 200 - taken
    sender.close()


def test_bytes_are_bounded_as_well_as_numbers(listener: socket.socket, lost: Counter[str]) -> None:
    sender = SampleSender(address.address_of(listener), counting(lost))
    huge = candidate(0.5, data=memoryview(bytes(module.MAX_WAITING_BYTES // 2)))
    assert [sender.submit(huge) for _ in range(3)] == [True, True, False]


def test_without_a_sampling_process_candidates_are_counted_and_the_next_one_finds_its_successor(
    lost: Counter[str],
) -> None:
    first = address.listen(socket.SOCK_STREAM)
    sender = SampleSender(address.address_of(first), counting(lost))
    sender.start()
    sender.submit(candidate(0.5, seq=1))
    connection, _ = first.accept()
    assert read_one(connection) == 1
    connection.close()  # the sampling process dies; the supervisor keeps the listener
    accepted: list[int] = []

    def successor() -> None:
        following, _ = first.accept()
        with following:
            accepted.append(read_one(following))

    thread = threading.Thread(target=successor)
    thread.start()
    sender.submit(candidate(0.5, seq=2))
    thread.join(60)
    assert accepted == [2]
    first.close()
    sender.submit(candidate(0.5, seq=3))
    sender.submit(candidate(0.5, seq=4))
    wait_for(lambda: lost["no_observer"] >= 1)
    sender.close()
