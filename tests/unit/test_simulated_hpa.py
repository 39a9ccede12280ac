"""The simulated HorizontalPodAutoscaler decides as Kubernetes does, also in examples of its documentation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.simulation.autoscaling.behavior import Behavior, Limiter, Policy, Rules
from streamer.simulation.autoscaling.hpa import (
    NoMetrics,
    Phase,
    PodMetric,
    for_external_average,
    for_external_value,
    for_pods_metric,
)
from streamer.simulation.errors import BadScenario

#: What Kubernetes sets if an HPA has no ``behavior``.
DEFAULT = Behavior(
    Rules(0, (Policy("Percent", 100, 15), Policy("Pods", 4, 15))), Rules(300, (Policy("Percent", 100, 15),))
)


def running(*values: float | None) -> list[PodMetric]:
    return [PodMetric(Phase.RUNNING, value) for value in values]


@pytest.mark.parametrize(
    ("value", "replicas"), [(200, 6), (50, 2), (109, 3), (91, 3), (112, 4), (88, 3), (60, 2)]
)
def test_replicas_are_proportional_to_the_mean_beyond_the_tolerance(value: float, replicas: int) -> None:
    """Values of the documentation: 200 of 100 doubles, 50 of 100 halves; a tenth is tolerated."""
    assert for_pods_metric(3, 100, running(value, value, value)) == replicas
    assert for_external_average(3, 100, 3 * value) == replicas
    assert for_external_value(3, 3, 100, value) == replicas


def test_pods_without_a_metric_dampen_both_directions() -> None:
    # Up: the two missing pods count as 0, so 4 pods have a mean of 75 instead of 2 with 150.
    assert for_pods_metric(4, 50, running(150, 150, None, None)) == 6
    # Down: they count as the target, so 4 pods have a mean of 60.
    assert for_pods_metric(4, 100, running(20, 20, None, None)) == 3
    # The mean would change the direction, so nothing happens.
    assert for_pods_metric(4, 100, running(150, None, None, None)) == 4


def test_pending_pods_count_only_when_pods_are_added() -> None:
    pending = [PodMetric(Phase.PENDING, None)] * 2
    assert for_pods_metric(4, 50, [*running(150, 150), *pending]) == 6
    assert for_pods_metric(4, 100, [*running(140, 140), *pending]) == 4
    assert for_pods_metric(4, 100, [*running(40, 40), *pending]) == 1


def test_deleted_pods_and_their_metrics_do_not_count() -> None:
    assert for_pods_metric(2, 100, [*running(100, 100), PodMetric(Phase.DELETED, 0)]) == 2


def test_without_metrics_nothing_is_recommended() -> None:
    for pods in ([], running(None, None), [PodMetric(Phase.PENDING, 50)]):
        with pytest.raises(NoMetrics):
            for_pods_metric(2, 100, pods)


def test_an_average_of_the_release_grows_with_the_load_and_not_with_the_pods() -> None:
    """KEDA divides by all pods, ready or not, so a cold start adds no further ones."""
    assert for_external_average(4, 70, 700) == 10
    assert for_external_average(10, 70, 700) == 10


def test_the_documented_limits_of_scaling_down() -> None:
    """4 pods or 10 percent per minute, from 80 to 10: 8 pods, then 8 of 72, and 4 each below 40."""
    rules = Rules(0, (Policy("Pods", 4, 60), Policy("Percent", 10, 60)))
    limiter = Limiter(Behavior(DEFAULT.up, rules), 1, 100)
    replicas, seen = 80, [80]
    for minute in range(1, 14):
        replicas = limiter.apply(60.0 * minute, replicas, 10)
        assert limiter.apply(60.0 * minute + 15, replicas, 10) == replicas, "the minute is used up"
        seen.append(replicas)
    assert seen == [80, 72, 64, 57, 51, 45, 40, 36, 32, 28, 24, 20, 16, 12]


def test_the_default_limits_of_scaling_up() -> None:
    limiter = Limiter(DEFAULT, 1, 100)
    replicas, seen = 1, [1]
    for step in range(1, 7):
        replicas = limiter.apply(15.0 * step, replicas, 100)
        seen.append(replicas)
    assert seen == [1, 5, 10, 20, 40, 80, 100]


@pytest.mark.parametrize(("select", "up", "down"), [("Max", 20, 5), ("Min", 14, 8), ("Disabled", 10, 10)])
def test_the_selected_policy_applies(select: str, up: int, down: int) -> None:
    rules = Rules(0, (Policy("Pods", 4, 60), Policy("Percent", 100, 60)), select)  # type: ignore[arg-type]
    assert Limiter(Behavior(rules, rules), 1, 100).apply(0, 10, 50) == up
    rules = Rules(0, (Policy("Pods", 2, 60), Policy("Percent", 50, 60)), select)  # type: ignore[arg-type]
    assert Limiter(Behavior(rules, rules), 1, 100).apply(0, 10, 1) == down


def test_the_windows_take_the_most_cautious_recommendation() -> None:
    rules = (Policy("Percent", 100, 15),)
    limiter = Limiter(Behavior(Rules(60, rules), Rules(300, rules)), 1, 100)
    assert limiter.apply(0, 10, 10) == 10
    assert limiter.apply(15, 10, 15) == 10, "a minute ago 10 were enough"
    assert limiter.apply(60, 10, 14) == 14
    assert limiter.apply(75, 14, 5) == 14
    assert limiter.apply(314, 14, 5) == 15 - 1, "the 15 of the second 15 still count, but do not scale up"
    assert limiter.apply(361, 14, 5) == 5


def test_a_new_autoscaler_begins_with_the_replicas_that_it_finds() -> None:
    assert Limiter(DEFAULT, 1, 100).apply(0, 10, 1) == 10


def test_the_range_of_replicas_applies_at_once() -> None:
    assert Limiter(DEFAULT, 2, 8).apply(0, 20, 20) == 8
    assert Limiter(DEFAULT, 2, 8).apply(0, 1, 1) == 2
    assert Limiter(DEFAULT, 2, 8).apply(0, 7, 50) == 8


def test_policies_are_read_and_written() -> None:
    assert Policy.parse("4/60") == Policy("Pods", 4, 60)
    assert Policy.parse(" 50%/30") == Policy("Percent", 50, 30)
    assert str(Policy("Percent", 50, 30)) == "50%/30"
    for wrong in ("4", "x/60", "0/60", "4/0", "4/1801", "-1/60", "4.5/60"):
        with pytest.raises(BadScenario, match="PODS/SECONDS"):
            Policy.parse(wrong)


@given(
    st.integers(1, 50),
    st.lists(st.one_of(st.none(), st.floats(0, 400)), min_size=1, max_size=50),
    st.integers(0, 20),
)
def test_missing_and_pending_pods_never_turn_the_direction(
    current: int, values: list[float | None], pending: int
) -> None:
    known = [value for value in values if value is not None]
    pods = [*running(*values), *[PodMetric(Phase.PENDING, None)] * pending]
    if not known:
        return
    wanted = for_pods_metric(len(pods), 70, pods)
    mean = sum(known) / len(known)
    if mean > 70.1:
        assert wanted >= len(pods)
    if mean < 69.9:
        assert wanted <= len(pods)
