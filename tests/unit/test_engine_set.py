"""A worker's engines: which one gets a frame, what the death of one costs, and how models are replaced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from inference.core.detection_params import DetectionParams
from inference.core.errors import InferenceLost
from inference.ipc import engine_set
from inference.ipc.engine_connection import Ticket
from inference.ipc.engine_set import EngineSet
from inference.ipc.engine_table import EngineTable, VersionEntry
from inference.ipc.shared_document import SharedDocument
from inference.ipc.shared_status import SharedStatus
from inference.ipc.wire import Result, Status
from tests.helpers.stand_in_engine import StandInEngine, handshake

OTHER = "1" * 64


class Rig:
    """Holds the engines of a worker, and stand-ins for their processes."""

    def __init__(self, number: int = 0, status: SharedStatus | None = None) -> None:
        self.engines = EngineSet(number=number, shared_status=status, spare_slots=4)
        self.stand_ins: list[StandInEngine] = []
        self.answers: dict[int, Result | InferenceLost] = {}
        self.changes: list[set[str]] = []
        self.engines.on_models = self.changes.append
        self._frames = 0

    def make(self, count: int) -> list[StandInEngine]:
        """Return stand-ins in slots of their own."""
        first = len(self.stand_ins)
        made = [StandInEngine(first + index, index) for index in range(count)]
        self.stand_ins += made
        return made

    async def serve(
        self, generation: int, stand_ins: list[StandInEngine], message: dict[str, Any] | None = None
    ) -> None:
        """Apply the table of a generation, and let its engines announce their models."""
        self.engines.apply(EngineTable(generation, tuple(each.entry for each in stand_ins)))
        await asyncio.gather(*(each.serve(message) for each in stand_ins))

    def begin(self) -> tuple[int, Ticket]:
        """Take a slot; return the number under which its answer will be found."""
        self._frames += 1
        number = self._frames

        def answered(answer: Result | InferenceLost) -> None:
            assert number not in self.answers
            self.answers[number] = answer

        return number, self.engines.acquire(answered)

    def submit(self, ticket: Ticket, stream: int = 0) -> None:
        model, params = self.engines.models["v1"], DetectionParams()
        self.engines.submit(ticket, model, params, stream=stream, interactive=not stream, deadline=1e12)

    def send(self, stream: int = 0) -> int:
        """Begin and submit a frame."""
        number, ticket = self.begin()
        self.submit(ticket, stream)
        return number

    def held(self) -> list[int]:
        """Return how many frames each engine holds."""
        return [len(each.read()) for each in self.stand_ins]

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.002)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    found = Rig()
    await found.engines.start()
    yield found
    await found.engines.close()
    for each in found.stand_ins:
        each.close()


async def test_posts_go_to_the_engine_that_is_expected_to_finish_first(rig: Rig) -> None:
    slow, fast = rig.make(2)
    rig.engines.apply(EngineTable(1, (slow.entry, fast.entry)))
    await asyncio.gather(slow.serve(handshake(run_ms=15.0)), fast.serve(handshake(run_ms=5.0)))
    for _ in range(4):
        rig.send()
    assert rig.held() == [1, 3]


async def test_all_engines_count_for_the_capacity(rig: Rig) -> None:
    one, two = rig.make(2)
    rig.engines.apply(EngineTable(1, (one.entry, two.entry)))
    await one.serve(handshake(run_ms=10.0))
    alone = rig.engines.models["v1"]
    assert (alone.in_flight, alone.parallel, round(alone.capacity_fps)) == (2, 1, 100)
    await two.serve(handshake(run_ms=5.0))
    await rig.until(lambda: rig.engines.models["v1"] is not alone)
    both = rig.engines.models["v1"]
    assert (both.in_flight, both.parallel, round(both.capacity_fps)) == (4, 2, 300)
    assert rig.changes == []


async def test_all_engines_map_one_ring(rig: Rig) -> None:
    one, two = rig.make(2)
    await rig.serve(1, [one, two])
    assert one.rings == two.rings
    assert len(one.rings) == 1
    assert rig.engines.rings.current is not None
    assert rig.engines.rings.current.slots == 2 * 2 + 4


async def test_a_stream_keeps_its_engine_and_its_order_while_a_frame_is_in_flight(rig: Rig) -> None:
    one, two = rig.make(2)
    await rig.serve(1, [one, two])
    rig.send(stream=7)
    home = one if one.read() else two
    for _ in range(3):
        rig.send()
    rig.send(stream=7)
    frames = [frame.stream for frame in home.read()]
    assert [stream for stream in frames if stream] == [7, 7]


async def test_a_stream_leaves_an_engine_that_is_overloaded_and_holds_no_frame_of_it(rig: Rig) -> None:
    one, two = rig.make(2)
    await rig.serve(1, [one, two])
    rig.send(stream=7)
    home, other = (one, two) if one.read() else (two, one)
    home.answer()
    await rig.until(lambda: 1 in rig.answers)
    # A little more work is no reason to leave.
    for stream in (8, 9):
        rig.send(stream=stream)
    await rig.until(lambda: rig.held() == [1, 1])
    rig.send(stream=7)
    assert [frame.stream for frame in home.read()][-1] == 7
    home.answer()
    home.answer()
    await rig.until(lambda: len(rig.answers) == 3)
    # Streams whose frames are in flight stay, so they fill this engine.
    at_home = 8 if home.frames == [] and other.frames[0].stream == 9 else 9
    for _ in range(3):
        rig.send(stream=at_home)
    rig.held()
    other.answer()
    await rig.until(lambda: len(rig.answers) == 4)
    rig.send(stream=7)
    assert [frame.stream for frame in other.read()] == [7]


async def test_the_death_of_an_engine_costs_its_frames_and_nothing_else(rig: Rig) -> None:
    ready: list[bool] = []
    rig.engines.on_change = ready.append
    one, two = rig.make(2)
    await rig.serve(1, [one, two])
    for _ in range(4):
        rig.send()
    assert rig.held() == [2, 2]
    kept = [frame.request_id for frame in two.frames]
    one.die()
    await rig.until(lambda: len(rig.answers) == 2)
    assert all(isinstance(answer, InferenceLost) for answer in rig.answers.values())
    assert rig.engines.models["v1"].in_flight == 2
    begun, ticket = rig.begin()
    rig.submit(ticket)
    assert len(two.read()) == 3
    for _ in range(3):
        two.answer()
    await rig.until(lambda: len(rig.answers) == 5)
    assert isinstance(rig.answers[begun], Result)
    assert len(kept) == 2
    await one.serve()
    await rig.until(lambda: rig.engines.models["v1"].in_flight == 4)
    assert (ready, rig.changes) == ([True], [])


async def test_a_frame_that_was_decoded_before_all_engines_died_does_not_run_on_later_ones(rig: Rig) -> None:
    (one,) = rig.make(1)
    await rig.serve(1, [one])
    number, ticket = rig.begin()
    one.die()
    await rig.until(lambda: not rig.engines.ready)
    await one.serve()
    await rig.until(lambda: rig.engines.ready)
    rig.submit(ticket)
    assert isinstance(rig.answers[number], InferenceLost)
    assert rig.engines.rings.current is not None
    assert rig.engines.rings.current.idle


async def test_an_engine_that_has_loaded_another_model_is_not_used(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = rig.make(2)
    rig.engines.apply(EngineTable(1, (one.entry, two.entry)))
    await one.serve()
    await two.serve(handshake(sha256=OTHER))
    await rig.until(lambda: all(each.ready for each in rig.engines.engines))
    for _ in range(2):
        rig.send()
    assert rig.held() == [2, 0]
    assert "engine 1 has loaded other models than engine 0" in caplog.text


async def test_frames_that_are_begun_go_to_the_old_engines_and_all_others_to_the_new_ones(rig: Rig) -> None:
    ready: list[bool] = []
    rig.engines.on_change = ready.append
    (old,) = rig.make(1)
    await rig.serve(1, [old])
    running = rig.send(stream=7)
    begun, ticket = rig.begin()
    new = rig.make(2)
    rig.engines.apply(EngineTable(2, tuple(each.entry for each in new)))
    await new[0].serve(handshake(sha256=OTHER))
    assert rig.engines.models["v1"].info.sha256 != OTHER, "not all new engines are ready"
    await new[1].serve(handshake(sha256=OTHER))
    await rig.until(lambda: rig.changes)
    assert rig.engines.models["v1"].info.sha256 == OTHER
    rig.submit(ticket)
    for _ in range(2):
        rig.send()
    assert rig.held() == [2, 1, 1]
    old.answer()
    await rig.until(lambda: running in rig.answers)
    assert not old.closed
    old.answer()
    await rig.until(lambda: begun in rig.answers)
    await rig.until(lambda: old.read() == [] and old.closed)
    assert (rig.changes, ready) == ([{"v1"}], [True])
    for each in new:
        each.answer()
    await rig.until(lambda: len(rig.answers) == 4)
    assert all(isinstance(answer, Result) for answer in rig.answers.values())


async def test_a_frame_waits_until_the_former_engine_has_answered_the_earlier_ones_of_its_stream(
    rig: Rig,
) -> None:
    (old,) = rig.make(1)
    await rig.serve(1, [old])
    first = rig.send(stream=7)
    second, ticket = rig.begin()
    (new,) = rig.make(1)
    await rig.serve(2, [new], handshake(sha256=OTHER))
    await rig.until(lambda: rig.changes)
    rig.submit(ticket, stream=7)
    third = rig.send(stream=7)
    other = rig.send(stream=8)
    assert rig.held() == [2, 1], "only the frame of the other stream may run"
    old.answer()
    await rig.until(lambda: first in rig.answers)
    assert rig.held() == [1, 1]
    old.answer()
    await rig.until(lambda: second in rig.answers)
    assert [frame.stream for frame in new.read()] == [8, 7]
    new.answer()
    new.answer()
    await rig.until(lambda: {third, other} <= rig.answers.keys())
    assert all(isinstance(answer, Result) for answer in rig.answers.values())


@pytest.mark.parametrize("dies", [True, False])
async def test_what_is_held_back_ends_with_the_worker_or_runs_when_the_former_engine_dies(
    rig: Rig, dies: bool
) -> None:
    old, new = rig.make(2)
    await rig.serve(1, [old])
    rig.send(stream=7)
    await rig.serve(2, [new], handshake(sha256=OTHER))
    await rig.until(lambda: rig.changes)
    held = rig.send(stream=7)
    if dies:
        old.die()
        await rig.until(new.read)
    await rig.engines.close()
    assert isinstance(rig.answers[held], InferenceLost)


async def test_old_engines_that_die_while_others_take_over_cost_their_frames(rig: Rig) -> None:
    (old,) = rig.make(1)
    await rig.serve(1, [old])
    running = rig.send()
    begun, ticket = rig.begin()
    new = rig.make(1)
    await rig.serve(2, new, handshake(sha256=OTHER))
    await rig.until(lambda: rig.changes)
    old.die()
    await rig.until(lambda: running in rig.answers)
    rig.submit(ticket)
    assert isinstance(rig.answers[running], InferenceLost)
    assert isinstance(rig.answers[begun], InferenceLost)
    assert rig.engines.ready
    rig.send()
    assert len(new[0].read()) == 1


async def test_the_old_engines_serve_until_new_ones_are_ready_and_a_new_table_can_take_that_back(
    rig: Rig,
) -> None:
    old, late = rig.make(2)
    await rig.serve(1, [old])
    rig.engines.apply(EngineTable(2, (late.entry,)))
    await late.accept()
    rig.send()
    rig.engines.apply(EngineTable(1, (old.entry,)))
    await rig.until(lambda: late.read() == [] and late.closed)
    rig.send()
    assert len(old.read()) == 2
    assert rig.changes == []


async def test_an_engine_that_does_not_become_ready_delays_the_others_for_a_time(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_set, "SWITCH_S", 0.05)
    old, new, late = rig.make(3)
    await rig.serve(1, [old])
    rig.engines.apply(EngineTable(2, (new.entry, late.entry)))
    await new.serve(handshake(sha256=OTHER))
    await rig.until(lambda: rig.changes)
    rig.send()
    assert rig.held()[:2] == [0, 1] if late.connection is not None else len(new.read()) == 1


async def test_a_larger_model_gets_a_new_ring_that_old_engines_map_too(rig: Rig) -> None:
    rings: list[int] = []
    rig.engines.on_ring = lambda ring: rings.append(ring.slot_bytes)
    old, new = rig.make(2)
    await rig.serve(1, [old])
    before, early = rig.begin()
    await rig.serve(2, [new], handshake(sha256=OTHER, width=128))
    await rig.until(lambda: rig.changes)
    assert len(rings) == 2
    assert rings[0] < rings[1]
    rig.submit(early)
    assert [frame.ring for frame in old.read()] == [0]
    rig.send()
    assert [frame.ring for frame in new.read()] == [1]
    old.answer()
    await rig.until(lambda: before in rig.answers)
    assert list(new.rings) == [1]


async def test_the_ring_that_nobody_uses_any_more_is_given_back(rig: Rig) -> None:
    one, two = rig.make(2)
    rig.engines.apply(EngineTable(1, (one.entry, two.entry)))
    await one.serve()
    number = rig.send()
    assert len(one.read()) == 1
    await two.serve(handshake() | {"prefetch_depth": 4})
    await rig.until(lambda: rig.engines.models["v1"].in_flight == 6)
    later = rig.send()
    assert [frame.ring for frame in two.read()] == [1]
    one.answer()
    await rig.until(lambda: number in rig.answers)
    two.answer()
    await rig.until(lambda: later in rig.answers)
    third = rig.send()
    await rig.until(lambda: one.read() or two.read())
    assert all(0 not in each.rings for each in (one, two))
    (one if one.frames else two).answer()
    await rig.until(lambda: third in rig.answers)


async def test_workers_see_each_others_work() -> None:
    status = SharedStatus()
    rigs = [Rig(number, status) for number in range(2)]
    for each in rigs:  # each worker has a connection of its own to the engines in slots 0 and 1
        await each.engines.start()
        await each.serve(1, each.make(2))
    for _ in range(2):
        rigs[0].send()
    work = status.work()
    assert work[0] == work[64] == 0.005
    work[0] = 1.0
    # Engine 0 has much work of worker 0, so worker 1 uses the other one.
    for _ in range(3):
        rigs[1].send()
    assert rigs[1].held() == [0, 3]
    work.release()
    for each in rigs:
        await each.engines.close()
        for stand_in in each.stand_ins:
            stand_in.close()


async def test_the_engine_table_is_read_when_it_has_changed() -> None:
    document = SharedDocument(capacity_bytes=1 << 16)
    (stand_in,) = made = [StandInEngine(3)]
    engines = EngineSet(document)
    await engines.start()
    table = EngineTable(4, (stand_in.entry,), {"v1": VersionEntry("a.onnx", "0" * 64)}, 1.5, "secret")
    document.publish(table.to_json())
    engines.refresh()
    assert engines.table == table
    await stand_in.serve()
    document.publish(b"no table")
    engines.refresh()
    assert engines.table == table
    await engines.close()
    for each in made:
        each.close()
    document.close()


async def test_a_frame_can_be_cancelled_wherever_it_is(rig: Rig) -> None:
    await rig.serve(1, rig.make(2))
    tickets = [rig.begin() for _ in range(2)]
    for _, ticket in tickets:
        rig.submit(ticket)
    for _, ticket in tickets:
        rig.engines.cancel(ticket)
    await rig.until(lambda: rig.held() == [0, 0])
    await rig.until(lambda: len(rig.answers) == 2)
    statuses = {answer.status for answer in rig.answers.values() if isinstance(answer, Result)}
    assert statuses == {Status.CANCELLED}
