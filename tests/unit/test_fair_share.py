"""Fair queueing shares cost by weight, starves no client, and charges every cost exactly once."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.core.fair_queueing import MAX_FLOWS, FairShare, Flow

CLASSES = {"post": 0.25, "live": 0.75}


def run(
    share: FairShare, costs_s: dict[Flow, float], seconds: float, *, expected_s: float = 0.01
) -> dict[Flow, float]:
    """Serve flows that always have an item, one at a time; return how many seconds each one got."""
    got: dict[Flow, float] = defaultdict(float)
    while sum(got.values()) < seconds:
        flow = share.pick(list(costs_s))
        share.start(flow, expected_s)
        share.settle(flow, expected_s, costs_s[flow])
        got[flow] += costs_s[flow]
    return got


def test_clients_share_the_time_and_not_the_count() -> None:
    share = FairShare(CLASSES)
    cheap, dear = share.flow("post", "cheap"), share.flow("post", "dear")
    got = run(share, {cheap: 0.01, dear: 0.5}, 20.0)
    assert got[cheap] == pytest.approx(got[dear], abs=0.51)


def test_weights_divide_a_class_and_classes_divide_the_whole() -> None:
    share = FairShare(CLASSES)
    heavy, light = share.flow("post", "heavy", 3.0), share.flow("post", "light", 1.0)
    live = share.flow("live", "camera")
    got = run(share, {heavy: 0.01, light: 0.02, live: 0.03}, 40.0)
    assert got[live] == pytest.approx(30.0, rel=0.05)
    assert got[heavy] == pytest.approx(7.5, rel=0.05)
    assert got[light] == pytest.approx(2.5, rel=0.05)


def test_a_class_of_many_clients_takes_nothing_from_the_other() -> None:
    share = FairShare(CLASSES)
    posts = [share.flow("post", number) for number in range(50)]
    live = share.flow("live", "camera")
    got = run(share, dict.fromkeys(posts, 0.02) | {live: 0.01}, 20.0)
    assert got[live] == pytest.approx(15.0, rel=0.05)


def test_ever_new_clients_of_one_class_do_not_starve_the_other() -> None:
    share = FairShare(CLASSES)
    camera, live = share.flow("live", "camera"), 0
    for number in range(400):
        flow = share.pick([share.flow("post", number), share.flow("post", number + 1), camera])
        share.start(flow, 0.02)
        share.settle(flow, 0.02, 0.02)
        live += flow is camera
    assert live == pytest.approx(300, rel=0.05)


def test_who_comes_seldom_goes_next_beside_any_number_of_greedy_clients() -> None:
    share = FairShare(CLASSES)
    greedy = [share.flow("live", number) for number in range(20)]
    run(share, dict.fromkeys(greedy, 0.02), 10.0)
    polite = share.flow("post", "polite")
    for _ in range(10):
        assert share.pick([*greedy, polite]) is polite
        share.start(polite, 0.02)
        share.settle(polite, 0.02, 0.02)
        run(share, dict.fromkeys(greedy, 0.02), 5.0)


def test_time_away_is_not_saved_up() -> None:
    share = FairShare(CLASSES)
    first, second = share.flow("live", 1), share.flow("live", 2)
    run(share, {first: 0.02}, 100.0)
    got = run(share, {first: 0.02, second: 0.02}, 10.0)
    assert got[second] == pytest.approx(5.0, abs=0.1)


def test_what_cost_more_than_expected_is_paid_before_the_next_turn() -> None:
    share = FairShare(CLASSES)
    liar, honest = share.flow("post", "liar"), share.flow("post", "honest")
    assert share.pick([liar, honest]) is liar
    share.start(liar, 0.01)
    share.settle(liar, 0.01, 2.0)
    picks: Counter[object] = Counter()
    while (flow := share.pick([liar, honest])) is honest:
        share.start(flow, 0.01)
        share.settle(flow, 0.01, 0.01)
        picks[flow.client] += 1
    assert picks["honest"] >= 190


def test_work_outside_of_turns_is_paid_with_turns_but_by_no_other_client() -> None:
    share = FairShare(CLASSES)
    video, images, posts = share.flow("live", "video"), share.flow("live", 2), share.flow("post", 3)
    got: dict[Flow, float] = defaultdict(float)
    while sum(got.values()) < 40.0:
        flow = share.pick([video, images, posts])
        share.start(flow, 0.02)
        share.settle(flow, 0.02, 0.02)
        got[flow] += 0.02
        if flow is video:  # decoding its video cost the same time again
            share.charge(video, 0.02)
    assert got[posts] == pytest.approx(10.0, rel=0.05)
    assert got[video] == pytest.approx(10.0, rel=0.05)
    assert got[images] == pytest.approx(20.0, rel=0.05)


def test_a_debt_for_work_outside_of_turns_is_bounded() -> None:
    share = FairShare(CLASSES)
    video, images = share.flow("live", "video"), share.flow("live", 2)
    for _ in range(1000):
        share.charge(video, 1.0)
    picks = 0
    while (flow := share.pick([video, images])) is images:
        share.start(flow, 0.02)
        share.settle(flow, 0.02, 0.02)
        picks += 1
    assert picks == pytest.approx(100, abs=2)


def test_rest_forgives_what_nobody_waited_for() -> None:
    share = FairShare(CLASSES)
    busy, newcomer = share.flow("live", "busy"), share.flow("live", "newcomer")
    run(share, {busy: 5.0}, 20.0)
    share.rest()
    got = run(share, {busy: 0.02, newcomer: 0.02}, 10.0)
    assert got[busy] == pytest.approx(5.0, abs=0.1)


def test_the_due_fraction_counts_those_that_wait_and_those_that_run() -> None:
    share = FairShare(CLASSES)
    mine, other, live = share.flow("post", 1), share.flow("post", 2), share.flow("live", 3)
    assert share.fraction(mine, []) == 1.0
    assert share.fraction(mine, [other]) == 0.5
    share.start(live, 0.1)
    assert share.fraction(mine, [other]) == pytest.approx(0.125)
    share.settle(live, 0.1, 0.1)
    assert share.fraction(mine, [other]) == 0.5


def test_memory_is_bounded_and_debtors_are_remembered_longest() -> None:
    share = FairShare(CLASSES)
    debtor = share.flow("post", "debtor")
    run(share, {debtor: 50.0}, 50.0)
    for number in range(3 * MAX_FLOWS):
        share.flow("post", number)
    assert len(share) == MAX_FLOWS
    assert share.flow("post", "debtor") is debtor


def test_a_class_that_does_not_exist_is_refused() -> None:
    with pytest.raises(KeyError):
        FairShare(CLASSES).flow("video", 1)


def test_nobody_waiting_is_an_error() -> None:
    with pytest.raises(ValueError, match="waits"):
        FairShare(CLASSES).pick([])


@given(
    st.lists(
        st.tuples(st.sampled_from(["post", "live"]), st.sampled_from([0.5, 1.0, 4.0]), st.floats(0.001, 0.5)),
        min_size=2,
        max_size=8,
    ),
    st.integers(1, 3),
    st.integers(0, 2**32),
)
def test_shares_follow_weights_within_a_bound_for_any_costs(
    clients: list[tuple[str, float, float]], inference_threads: int, seed: int
) -> None:
    """Among clients that always want more, each gets its share to within a few of the longest items."""
    share, rng = FairShare(CLASSES), random.Random(seed)
    flows = [share.flow(kind, number, weight) for number, (kind, weight, _) in enumerate(clients)]
    longest = max(cost for _, _, cost in clients)
    running: list[tuple[float, int, Flow, float]] = []
    now, actual = 0.0, 0.0
    for _ in range(600):
        while len(running) < inference_threads:
            flow = share.pick(flows)
            cost = clients[flows.index(flow)][2] * rng.uniform(0.5, 1.5)
            share.start(flow, 0.01)
            running.append((now + cost, len(running), flow, cost))
        running.sort(key=lambda each: each[:2])
        now, _, flow, cost = running.pop(0)
        share.settle(flow, 0.01, cost)
        actual += cost
    for _, _, flow, cost in running:
        share.settle(flow, 0.01, cost)
        actual += cost
    # Every cost is charged exactly once.
    assert sum(flow.charged_s for flow in flows) == pytest.approx(actual)
    fractions = {flow: share.fraction(flow, flows) for flow in flows}
    assert sum(fractions.values()) == pytest.approx(1.0)
    level = [flow.charged_s / fractions[flow] for flow in flows]
    # All clients have the same level of service, except for the items of one round and those that run.
    slack = (2 * inference_threads + 1) * longest * 1.5 / min(fractions.values())
    assert max(level) - min(level) <= slack


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=80), st.floats(0.001, 1.0))
def test_whoever_keeps_waiting_is_served(arrivals: list[tuple[int, bool]], cost: float) -> None:
    """A waiting client is picked after a bounded number of turns, however many others come and go."""
    share = FairShare(CLASSES)
    patient = share.flow("post", "patient")
    passed_over = 0
    for number, dear in arrivals:
        other = share.flow("live", number)
        flow = share.pick([other, patient])
        share.start(flow, cost)
        share.settle(flow, cost, cost * (10 if dear and flow is other else 1))
        passed_over = 0 if flow is patient else passed_over + 1
        assert passed_over <= 16
