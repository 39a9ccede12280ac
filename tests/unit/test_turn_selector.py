"""The event loop's selector returns requests first, and only a few streams and ended connections at once."""

from __future__ import annotations

import asyncio
import math
import selectors
import socket
import time
from collections.abc import Iterator

import pytest

from streamer.core.event_loop_selector import (
    MAX_PER_ITERATION,
    TurnSelector,
    make_loop,
    running_iteration,
)


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    made = [socket.socketpair() for _ in range(MAX_PER_ITERATION * 3)]
    yield made
    for pair in made:
        for end in pair:
            end.close()


def test_who_is_there_is_served_before_thousands_that_have_gone(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    selector = TurnSelector()
    for ours, theirs in pairs:
        selector.register(ours, selectors.EVENT_READ)
        theirs.close()
    alive, client = socket.socketpair()
    selector.register(alive.fileno(), selectors.EVENT_READ, "alive")
    client.send(b"a request")
    seen: set[int] = set()
    for _ in range(3):
        ready = selector.select(0)
        assert "alive" in [key.data for key, _ in ready]
        ended = {key.fd for key, _ in ready} - {alive.fileno()}
        assert len(ended) == MAX_PER_ITERATION
        for fd in ended:
            selector.unregister(fd)
        seen |= ended
    assert seen == {ours.fileno() for ours, _ in pairs}, "each in its turn"
    selector.close()
    alive.close()
    client.close()


def test_streams_that_always_have_something_to_say_keep_no_other_out(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    selector = TurnSelector()
    for ours, theirs in pairs:
        selector.register(ours, selectors.EVENT_READ)
        selector.streams.add(ours.fileno())
        theirs.send(b"a message, and more behind it")
    request, client = socket.socketpair()
    selector.register(request, selectors.EVENT_READ, "request")
    client.send(b"x")
    seen: set[int] = set()
    for _ in range(3):  # the test reads nothing, so all sockets stay ready
        ready = selector.select(0)
        assert ready[0][0].data == "request"
        assert len(ready) == MAX_PER_ITERATION + 1
        seen |= {key.fd for key, _ in ready[1:]}
    assert len(seen) == len(pairs)
    selector.close()
    request.close()
    client.close()


def test_it_tells_readers_and_writers_what_they_asked_for() -> None:
    ours, theirs = socket.socketpair()
    selector = TurnSelector()
    selector.register(ours, selectors.EVENT_WRITE, "writer")
    theirs.send(b"not asked for")
    assert [(key.data, events) for key, events in selector.select(1)] == [("writer", selectors.EVENT_WRITE)]
    selector.modify(ours, selectors.EVENT_READ, "reader")
    assert [(key.data, events) for key, events in selector.select(1)] == [("reader", selectors.EVENT_READ)]
    with pytest.raises(KeyError):
        selector.register(ours, selectors.EVENT_READ)
    assert selector.get_key(ours).data == "reader"
    theirs.close()
    assert [events for _, events in selector.select(1)] == [selectors.EVENT_READ], "an end is read"
    fd = ours.fileno()
    ours.close()
    assert selector.unregister(fd).data == "reader"
    with pytest.raises(KeyError):
        selector.unregister(fd)
    selector.close()


def test_a_client_that_has_sent_all_and_closed_its_side_is_answered() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"echo " + await reader.read())
        writer.close()

    async def ask() -> bytes:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"request")
        writer.write_eof()
        text = await asyncio.wait_for(reader.read(), 60)
        writer.close()
        await writer.wait_closed()
        server.close()
        return text

    with asyncio.Runner(loop_factory=make_loop) as runner:
        assert runner.run(ask()) == b"echo request"


def test_callbacks_of_the_last_iteration_run_before_the_kernel_is_asked_again() -> None:
    ours, theirs = socket.socketpair()
    selector = TurnSelector()
    selector.register(ours, selectors.EVENT_READ)
    assert selector.select(0) == []
    theirs.send(b"x")
    assert [len(selector.select(0)) for _ in range(4)] == [1, 0, 1, 0]
    assert len(selector.select(1)) == 1, "without callbacks the kernel is always asked"
    selector.close()
    ours.close()
    theirs.close()


def test_a_task_knows_when_the_iteration_began() -> None:
    async def look() -> list[float]:
        iteration = running_iteration()
        begun = [time.monotonic()]
        for _ in range(3):
            await asyncio.sleep(0)
            begun += [iteration.started, time.monotonic()]
        return begun

    with asyncio.Runner(loop_factory=make_loop) as runner:
        moments = runner.run(look())
    assert moments == sorted(moments)
    assert len(set(moments)) > 4, "each iteration has its own beginning"


async def test_in_another_event_loop_no_iteration_is_ever_too_long() -> None:
    assert running_iteration().started == math.inf
