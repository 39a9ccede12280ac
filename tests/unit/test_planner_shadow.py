"""Shadow items run only on an idle device, never with or before an item of a client, and are bounded."""

from __future__ import annotations

import dataclasses
import itertools
import math

from hypothesis import given
from hypothesis import strategies as st

from inference.engine.items import Batch, BatchReason, Item
from inference.engine.planner import MAX_SHADOWS, Planner
from tests.helpers.planner_items import FLAT, STEEP, frame, next_batch, planner


def shadow(*, worker: int = 1, version: int = 0, deadline: float = 1e9) -> Item:
    submit = frame((1 << 32) - 1, version=version, deadline=deadline).submit
    return Item(worker, dataclasses.replace(submit, shadow=True), 0.0)


def test_a_shadow_item_runs_on_an_idle_device() -> None:
    plan = planner(FLAT)
    item = shadow()
    plan.add(item)
    batch = next_batch(plan)
    assert (batch.items, batch.reason, plan.runs_shadow) == ((item,), BatchReason.SHADOW, True)
    plan.done(batch)
    assert (plan.runs_shadow, plan.waiting, plan.next()) == (False, 0, None)


def test_items_of_all_workers_and_versions_go_first() -> None:
    plan = planner(STEEP, parallel=2, versions=2)
    plan.add(shadow(worker=1))
    plan.add(frame(1, worker=2, version=1))
    first = next_batch(plan)
    assert first.reason is not BatchReason.SHADOW
    assert plan.next() is None, "a thread is idle, but a client's frame runs"
    plan.done(first)
    assert next_batch(plan).reason is BatchReason.SHADOW


def test_an_item_is_planned_as_if_no_shadow_item_ran() -> None:
    plan = planner(STEEP)
    plan.add(shadow())
    next_batch(plan)
    plan.add(frame(1))
    batch = next_batch(plan)
    assert (batch.single, batch.reason) == (True, BatchReason.DRAINED)


def test_a_suspect_waits_until_the_shadow_run_has_ended() -> None:
    plan = planner(FLAT, parallel=2)
    plan.add(shadow())
    running = next_batch(plan)
    plan.add(Item(1, dataclasses.replace(frame(0).submit, alone=True), 0.0))
    assert plan.next() is None, "a death must have one cause"
    plan.done(running)
    assert next_batch(plan).items[0].submit.alone


def test_shadow_items_beyond_the_bound_are_returned_unrun() -> None:
    plan = planner(FLAT)
    items = [shadow() for _ in range(MAX_SHADOWS + 2)]
    for item in items:
        plan.add(item)
    assert plan.waiting == MAX_SHADOWS
    assert plan.expire(0.0) == items[MAX_SHADOWS:]
    assert plan.expire(0.0) == []


def test_a_shadow_item_can_be_withdrawn_expires_and_goes_with_its_worker() -> None:
    plan = planner(FLAT)
    withdrawn, late, orphan, running = shadow(), shadow(deadline=5.0), shadow(worker=2), shadow()
    for item in (running, withdrawn, late, orphan):
        plan.add(item)
    batch = next_batch(plan)
    assert plan.cancel(1, withdrawn.submit.request_id) == withdrawn
    assert plan.cancel(1, running.submit.request_id) is None
    assert plan.is_running_shadow(1, running.submit.request_id)
    assert not plan.is_running_shadow(2, running.submit.request_id)
    assert plan.expire(6.0) == [late]
    plan.forget_worker(2)
    plan.done(batch)
    assert (plan.waiting, plan.next()) == (0, None)


ACTIONS = st.lists(st.sampled_from(["post", "frame", "suspect", "shadow", "next", "done"]), max_size=80)


@given(actions=ACTIONS, parallel=st.integers(1, 3), cost=st.sampled_from([FLAT, STEEP]))
def test_shadow_items_never_precede_or_join_others(
    actions: list[str], parallel: int, cost: dict[int, float]
) -> None:
    plan = planner(cost, parallel=parallel, versions=2)
    plain = planner(cost, parallel=parallel, versions=2)  # gets the same items, except for shadow items
    turn = itertools.count()
    running: list[tuple[Batch, Batch | None]] = []
    for action in actions:
        number = next(turn)
        if action == "next":
            running += take(plan, plain, running)
        elif action == "done" and running:
            batch, twin = running.pop(0)
            plan.done(batch)
            if twin is not None:
                plain.done(twin)
        elif action == "shadow":
            plan.add(shadow(worker=number % 2, version=number % 2))
        elif action in ("post", "frame", "suspect"):
            item = frame(0 if action != "frame" else number % 3 + 1, worker=number % 2, version=number % 2)
            item = Item(item.worker, dataclasses.replace(item.submit, alone=action == "suspect"), number)
            plan.add(item)
            plain.add(item)


def take(
    plan: Planner, plain: Planner, running: list[tuple[Batch, Batch | None]]
) -> list[tuple[Batch, Batch | None]]:
    """Take a batch from both planners, and check that shadow items have changed nothing for the others."""
    before = plan.waiting - len(plan._shadows)
    batch = plan.next()
    if batch is not None and batch.reason is BatchReason.SHADOW:
        assert len(batch.items) == 1
        assert before == 0
        assert not running
        return [(batch, None)]
    if batch is None and plan.runs_shadow:
        return []  # only an item that executes alone waits for the end of a shadow run
    twin = plain.next()
    if batch is None or twin is None:
        assert batch is twin
        return []
    assert not any(item.submit.shadow for item in batch.items)
    assert batch.items == twin.items
    assert (batch.single, batch.reason) == (twin.single, twin.reason)
    return [(batch, twin)]


def test_expiry_is_not_searched_for_in_vain() -> None:
    plan = planner(FLAT)
    plan.add(shadow(deadline=math.inf))
    assert plan.expire(1e12) == []
