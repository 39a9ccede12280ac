"""The stride scheduler shares by weight, and a party that was away has not saved up turns."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.core.fair_queueing import Stride


def test_shares_follow_the_weights_while_all_wait() -> None:
    stride = Stride({"post": 0.25, "live": 0.75})
    served: Counter[str] = Counter()
    for _ in range(400):
        choice = stride.pick(["post", "live"])
        stride.charge(choice, 1.0)
        served[choice] += 1
    assert served == {"live": 300, "post": 100}


def test_a_party_that_was_away_starts_level_instead_of_catching_up() -> None:
    stride = Stride({"a": 1.0, "b": 1.0})
    for _ in range(100):
        stride.charge(stride.pick(["a"]), 1.0)
    picks = []
    for _ in range(10):
        choice = stride.pick(["a", "b"])
        stride.charge(choice, 1.0)
        picks.append(choice)
    assert picks.count("b") in (5, 6)


def test_nobody_waiting_is_an_error() -> None:
    with pytest.raises(ValueError, match="no party waits"):
        Stride({"a": 1.0}).pick([])


@given(st.lists(st.sets(st.sampled_from("abc"), min_size=1), min_size=1, max_size=60))
def test_it_only_ever_picks_somebody_who_waits(rounds: list[set[str]]) -> None:
    stride = Stride({"a": 1.0, "b": 2.0, "c": 0.5})
    for waiting in rounds:
        choice = stride.pick(sorted(waiting))
        assert choice in waiting
        stride.charge(choice, 1.0)
