"""The byte budget: no client can hold all of it, and every holding is given back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamer.core.byte_budget import ByteBudget


def fill(budget: ByteBudget, client: str, step: int = 1) -> int:
    """Take bytes in steps until the budget refuses, and return how many were taken."""
    holding = budget.hold(client, "body")
    while holding.take(step):
        pass
    return holding.held_bytes


def test_a_client_alone_has_two_thirds_and_the_next_two_thirds_of_what_is_left() -> None:
    budget = ByteBudget(900)
    assert fill(budget, "a") == 600
    assert fill(budget, "b") == 200
    assert fill(budget, "a") == 0
    assert fill(budget, "c") > 50
    assert budget.held_bytes < 900


def test_two_greedy_clients_that_grow_together_have_two_fifths_each() -> None:
    budget = ByteBudget(1000)
    first, second = budget.hold("a", "body"), budget.hold("b", "body")
    while first.take(1) | second.take(1):
        pass
    assert abs(first.held_bytes - 400) < 3 > abs(second.held_bytes - 400)


def test_holdings_of_one_client_share_its_part() -> None:
    budget = ByteBudget(900)
    assert sum(fill(budget, "a", 100) for _ in range(10)) == 600


def test_a_refusal_takes_nothing_and_is_told() -> None:
    told: list[str] = []
    budget = ByteBudget(300, told.append)
    with budget.hold("a", "answer") as holding:
        assert not holding.take(201)
        assert (holding.held_bytes, budget.held_bytes, told) == (0, 0, ["answer"])
        assert holding.take(200)
        assert budget.by_kind() == {"answer": 200}
    assert (budget.held_bytes, budget.by_kind()) == (0, {"answer": 0})
    holding.release()
    assert budget.held_bytes == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 400), st.booleans()), max_size=60))
def test_the_sum_is_right_and_never_above_the_limit(steps: list[tuple[str, int, bool]]) -> None:
    budget = ByteBudget(1000)
    holdings = {name: budget.hold(name, "body") for name in "abc"}
    for name, count, takes in steps:
        if takes:
            holdings[name].take(count)
        else:
            holdings[name].give_back(min(count, holdings[name].held_bytes))
        assert budget.held_bytes == sum(holding.held_bytes for holding in holdings.values()) <= 1000
    for holding in holdings.values():
        holding.release()
    assert budget.held_bytes == 0
