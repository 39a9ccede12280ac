"""A bucket grants a burst and then its rate; a larger amount is granted once and paid off afterwards."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.core.token_bucket import TokenBucket


def test_a_burst_passes_and_then_the_rate() -> None:
    bucket = TokenBucket(10.0, 5.0, 0.0)
    assert [bucket.take(0.0) for _ in range(6)] == [True] * 5 + [False]
    assert bucket.wait_s(0.0) == pytest.approx(0.1)
    assert bucket.retry_after_s(0.0) == 1
    assert bucket.take(0.11)


def test_more_than_the_burst_is_granted_once_and_paid_afterwards() -> None:
    bucket = TokenBucket(100.0, 50.0, 0.0)
    assert bucket.take(0.0, 250.0)
    assert not bucket.take(1.0, 1.0)
    assert bucket.retry_after_s(1.0, 50.0) == 2
    assert bucket.take(2.6, 50.0)


def test_what_was_spent_already_is_paid_before_more_is_granted() -> None:
    bucket = TokenBucket(10.0, 10.0, 0.0)
    bucket.spend(0.0, 30.0)
    assert not bucket.take(1.9)
    assert bucket.take(2.2)


@pytest.mark.parametrize(("per_s", "burst"), [(0.0, 1.0), (1.0, 0.0), (-1.0, 1.0), (float("nan"), 1.0)])
def test_a_rate_that_is_none_is_refused(per_s: float, burst: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        TokenBucket(per_s, burst, 0.0)


@given(
    st.floats(0.5, 100.0),
    st.floats(1.0, 50.0),
    st.lists(st.tuples(st.floats(0.0, 2.0), st.floats(0.1, 5.0)), max_size=60),
)
def test_never_more_than_the_burst_and_the_rate(
    per_s: float, burst: float, steps: list[tuple[float, float]]
) -> None:
    bucket = TokenBucket(per_s, burst, 0.0)
    now, taken = 0.0, 0.0
    for pause_s, amount in steps:
        now += pause_s
        if bucket.take(now, amount):
            taken += amount
        # The bucket may grant an amount larger than the burst, here up to 5.
        assert taken <= burst + now * per_s + 5.0 + 1e-6
