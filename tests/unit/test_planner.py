"""Tests that the planner is work-conserving and fair, keeps streams in order and checks deadlines."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.core.warmup import worthwhile_buckets
from inference.engine.items import Batch, BatchReason, Item
from inference.engine.planner import MAX_REMEMBERED_STREAMS, Planner
from tests.helpers.planner_items import FLAT, STEEP, frame, next_batch, planner


def test_nothing_waiting_gives_no_batch() -> None:
    assert planner(FLAT).next() is None


def test_where_batching_gains_nothing_every_frame_goes_alone() -> None:
    plan = planner(FLAT)
    for stream in (1, 2, 3):
        plan.add(frame(stream))
    batch = next_batch(plan)
    assert (len(batch.items), batch.reason) == (1, BatchReason.FULL)


def test_where_batching_pays_everything_that_waits_goes_together() -> None:
    plan = planner(STEEP)
    for stream in range(1, 9):
        plan.add(frame(stream))
    batch = next_batch(plan)
    assert (len(batch.items), batch.reason) == (8, BatchReason.FULL)


def test_a_lone_frame_leaves_at_once() -> None:
    plan = planner(STEEP)
    plan.add(frame(1))
    batch = next_batch(plan)
    assert (len(batch.items), batch.reason, batch.single) == (1, BatchReason.DRAINED, True)


def test_waiting_frames_are_split_over_idle_lanes() -> None:
    plan = planner(STEEP, parallel=2)
    for stream in range(1, 5):
        plan.add(frame(stream))
    assert (len(next_batch(plan).items), len(next_batch(plan).items)) == (2, 2)


def test_padding_is_used_only_where_it_costs_less_than_two_runs() -> None:
    cheap = planner({1: 0.010, 4: 0.012})
    dear = planner({1: 0.001, 4: 0.0035})
    for stream in (1, 2, 3):
        cheap.add(frame(stream))
        dear.add(frame(stream))
    assert len(next_batch(cheap).items) == 3
    first = next_batch(dear)
    assert (len(first.items), first.reason) == (1, BatchReason.COST)


def test_a_static_batch_of_four_takes_what_there_is() -> None:
    plan = planner({4: 0.01}, parallel=2)
    for stream in (1, 2, 3):
        plan.add(frame(stream))
    assert len(next_batch(plan).items) == 3


def test_a_stream_has_one_frame_in_a_batch_and_one_batch_at_a_time() -> None:
    plan = planner(STEEP, parallel=2)
    plan.add(frame(1))
    plan.add(frame(1))
    first = next_batch(plan)
    assert len(first.items) == 1
    assert plan.next() is None
    plan.done(first)
    assert len(next_batch(plan).items) == 1


def test_frames_of_a_stream_keep_their_order() -> None:
    plan = planner(FLAT)
    frames = [frame(1) for _ in range(4)]
    for item in frames:
        plan.add(item)
    served: list[Item] = []
    for _ in frames:
        batch = next_batch(plan)
        served += batch.items
        plan.done(batch)
    assert served == frames


def test_the_least_recently_served_stream_goes_first() -> None:
    plan = planner(FLAT)
    for stream in (1, 2):
        plan.add(frame(stream))
    done = next_batch(plan)
    plan.done(done)
    plan.add(frame(done.items[0].submit.stream))
    assert next_batch(plan).items[0].submit.stream != done.items[0].submit.stream


def test_equal_stream_numbers_of_two_workers_are_two_streams() -> None:
    plan = planner(STEEP)
    plan.add(frame(1, worker=1))
    plan.add(frame(1, worker=2))
    assert len(next_batch(plan).items) == 2


def test_posts_get_their_reserved_share_beside_many_streams() -> None:
    plan = planner(FLAT)
    served: Counter[str] = Counter()
    for turn in range(300):
        plan.add(frame(0))
        plan.add(frame(turn % 20 + 1))
    for _ in range(200):
        batch = next_batch(plan)
        served["post" if batch.items[0].submit.interactive else "live"] += 1
        plan.done(batch)
    assert 45 <= served["post"] <= 55


def test_two_versions_share_device_time_not_frames() -> None:
    plan = Planner({0: {1: 0.010}, 1: {1: 0.040}}, parallel=1)
    busy: Counter[int] = Counter()
    for turn in range(200):
        for version in (0, 1):
            if turn % 5 == 0:
                for stream in range(10):
                    plan.add(frame(stream + 1, version=version))
        batch = next_batch(plan)
        busy[batch.version] += 1
        plan.done(batch)
    assert busy[0] / busy[1] == pytest.approx(4.0, rel=0.15)


def served_s(plan: Planner, items: list[Item], runs: int, cost_s: dict[int, float]) -> Counter[int]:
    """Run ``runs`` batches, replace each frame after its run, and return each client's milliseconds."""
    busy: Counter[int] = Counter()
    for item in items:
        plan.add(item)
    for _ in range(runs):
        batch = next_batch(plan)
        (item,) = batch.items
        client, stream = item.submit.client, item.submit.stream
        plan.done(batch, cost_s[client])
        busy[client] += round(cost_s[client] * 1e3)
        plan.add(frame(stream, client=client, weight=item.submit.weight))
    return busy


def test_clients_share_device_time_whatever_their_frames_cost() -> None:
    items = [frame(1, client=1), frame(2, client=2)]
    busy = served_s(planner(FLAT), items, 400, {1: 0.010, 2: 0.040})
    assert busy[1] / busy[2] == pytest.approx(1.0, rel=0.1)


def test_a_client_with_many_streams_counts_as_one() -> None:
    items = [frame(stream, client=1) for stream in range(1, 21)] + [frame(21, client=2)]
    busy = served_s(planner(FLAT), items, 400, {1: 0.010, 2: 0.010})
    assert busy[1] / busy[2] == pytest.approx(1.0, rel=0.05)


def test_a_weight_of_three_gets_three_times_the_time() -> None:
    items = [frame(0, client=1, weight=3.0), frame(0, client=2)]
    busy = served_s(planner(FLAT), items, 400, {1: 0.010, 2: 0.010})
    assert busy[1] / busy[2] == pytest.approx(3.0, rel=0.05)


def test_a_polite_post_goes_at_the_next_turn_of_its_class_beside_many_greedy_clients() -> None:
    plan = planner(FLAT)
    for client in range(1, 20):
        for _ in range(5):
            plan.add(frame(0, client=client))
            plan.add(frame(client, client=client))
    for _ in range(120):
        plan.done(next_batch(plan), 0.02)
    polite = frame(0, client=99)
    plan.add(polite)
    # It runs at the latest at the next turn of its class, which has a quarter of the device time.
    batches = [next_batch(plan) for _ in range(6)]
    assert (polite,) in [batch.items for batch in batches]


def test_every_run_is_charged_exactly_once() -> None:
    plan = planner(STEEP)
    for turn in range(60):
        plan.add(frame(turn % 3, client=turn % 3))
    spent = 0.0
    while (batch := plan.next()) is not None:
        plan.done(batch, 0.1 + len(batch.items) / 100)
        spent += 0.1 + len(batch.items) / 100
    flows = plan._queues[0].share._flows.values()
    assert sum(flow.charged_s for flow in flows) == pytest.approx(spent)
    assert all(flow.running == 0 for flow in flows)


def test_expired_items_are_returned_and_never_run() -> None:
    plan = planner(FLAT)
    late, post, fresh = frame(1, deadline=5.0), frame(0, deadline=5.0), frame(2, deadline=50.0)
    for item in (late, post, fresh):
        plan.add(item)
    expired = plan.expire(now=6.0)
    assert late in expired
    assert post in expired
    assert len(expired) == 2
    assert next_batch(plan).items == (fresh,)
    assert plan.next() is None


def test_cancelling_withdraws_a_waiting_item_once() -> None:
    plan = planner(FLAT)
    item = frame(1)
    plan.add(item)
    assert plan.cancel(1, item.submit.request_id) is item
    assert plan.cancel(1, item.submit.request_id) is None
    assert plan.next() is None


def test_a_worker_that_is_gone_leaves_nothing_behind() -> None:
    plan = planner(FLAT)
    plan.add(frame(1, worker=7))
    plan.add(frame(0, worker=7))
    kept = frame(1, worker=8)
    plan.add(kept)
    plan.forget_worker(7)
    assert plan.waiting == 1
    assert next_batch(plan).items == (kept,)


def test_memory_of_served_streams_is_bounded() -> None:
    plan = planner(FLAT)
    for stream in range(1, MAX_REMEMBERED_STREAMS + 100):
        plan.add(frame(stream))
        plan.done(next_batch(plan))
    assert len(plan._served) == MAX_REMEMBERED_STREAMS


def test_worthwhile_buckets_stop_where_a_larger_batch_gains_too_little() -> None:
    assert worthwhile_buckets(FLAT) == (1,)
    assert worthwhile_buckets(STEEP) == (1, 2, 4, 8)
    assert worthwhile_buckets({1: 0.010, 2: 0.012, 4: 0.0235}) == (1, 2)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1), st.booleans()), max_size=60),
    st.sampled_from([FLAT, STEEP]),
    st.integers(1, 4),
)
def test_everything_added_runs_exactly_once_and_streams_never_overlap(
    actions: list[tuple[int, int, bool]], cost: dict[int, float], parallel: int
) -> None:
    plan = planner(cost, parallel=parallel, versions=2)
    added: list[Item] = []
    ran: list[Item] = []
    running: list[Batch] = []
    for stream, version, run in actions:
        item = frame(stream, version=version)
        plan.add(item)
        added.append(item)
        if run and len(running) < parallel and (batch := plan.next()) is not None:
            running.append(batch)
            ran += batch.items
        executing = [i.stream for b in running for i in b.items if i.stream is not None]
        assert len(executing) == len(set(executing))
        if len(running) == parallel:
            plan.done(running.pop(0))
    for batch in running:
        plan.done(batch)
    while (batch_left := plan.next()) is not None:
        ran += batch_left.items
        plan.done(batch_left)
    assert sorted(i.submit.request_id for i in ran) == sorted(i.submit.request_id for i in added)
    assert plan.waiting == 0


def test_a_suspect_goes_first_and_with_nothing_beside_it() -> None:
    plan = planner(STEEP, parallel=2, versions=2)
    plan.add(frame(1))
    running = next_batch(plan)
    ordinary = frame(2)
    suspect = Item(1, dataclasses.replace(frame(0, version=1).submit, alone=True), 0.0)
    plan.add(ordinary)
    plan.add(suspect)
    assert plan.waiting == 2
    assert plan.next() is None, "something runs still"
    plan.done(running)
    alone = next_batch(plan)
    assert alone.items == (suspect,)
    assert plan.next() is None, "nothing may run beside it"
    plan.done(alone)
    assert next_batch(plan).items == (ordinary,)


def test_a_suspect_can_be_withdrawn_and_expires() -> None:
    plan = planner(FLAT)
    first, second = (
        Item(1, dataclasses.replace(frame(0, deadline=5.0).submit, alone=True), 0.0) for _ in range(2)
    )
    plan.add(first)
    plan.add(second)
    assert plan.cancel(1, first.submit.request_id) == first
    assert plan.expire(6.0) == [second]
    assert (plan.waiting, plan.next()) == (0, None)


def test_suspects_and_others_do_not_starve_each_other() -> None:
    plan = planner(FLAT, parallel=2)
    now = 0.0

    def add(stream: int, *, alone: bool) -> None:
        item = frame(stream)
        plan.add(Item(1, dataclasses.replace(item.submit, alone=alone), now))

    for stream in (1, 2):
        add(stream, alone=True)
    add(3, alone=False)
    served: list[int] = []
    for _ in range(30):
        now += 1.0
        batch = next_batch(plan)
        (item,) = batch.items
        served.append(item.submit.stream)
        plan.done(batch)
        add(item.submit.stream, alone=item.submit.alone)  # the stream sends its next frame
    assert all(served.count(stream) >= 8 for stream in (1, 2, 3))
