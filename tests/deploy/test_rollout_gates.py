"""The gates for Argo Rollouts and Flagger, evaluated by promtool on recorded series of the verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from streamer.comparison.metrics import _PREFIX, VERDICTS
from tests.deploy.chart import Chart
from tests.deploy.rules import run_rule_tests
from tests.helpers.service import ROOT

FOLDER = ROOT / "docs" / "operations"
METRIC = f"{_PREFIX}_verdict"


def manifest(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text())
    return loaded


def argo_metric() -> dict[str, Any]:
    (metric,) = manifest("argo-rollouts.yaml")["spec"]["metrics"]
    return dict(metric)


def queries() -> dict[str, str]:
    return {
        "argo": argo_metric()["provider"]["prometheus"]["query"],
        "flagger": manifest("flagger.yaml")["spec"]["query"],
    }


def replica(
    pod: str, changes: list[tuple[int, str]], *, namespace: str = "vision", end: int = 60
) -> list[dict[str, str]]:
    """Return the series of one replica: from each minute of ``changes`` on, that verdict holds.

    ``end`` is the minute at which the replica is gone. The first verdict is `undecided`.
    """
    current, held = "undecided", []
    moments = dict(changes)
    for minute in range(end):
        current = moments.get(minute, current)
        held.append(current)
    return [
        {
            "series": f'{METRIC}{{namespace="{namespace}",pod="{pod}",instance="{pod}",verdict="{verdict}"}}',
            "values": " ".join(str(int(each == verdict)) for each in held) + (" stale" if end < 60 else ""),
        }
        for verdict in VERDICTS
    ]


OWN = "detect-real-time-vision-api-"
CASES: dict[str, tuple[list[dict[str, str]], dict[int, float]]] = {
    "one replica finds no difference": (
        replica(f"{OWN}0", [(20, "no_difference")]),
        {0: 0, 19: 0, 20: 1, 50: 1},
    ),
    "one replica finds that v2 differs": (replica(f"{OWN}0", [(20, "differs")]), {19: 0, 20: -2}),
    "a verdict that is withdrawn, because the model was changed": (
        replica(f"{OWN}0", [(10, "no_difference"), (30, "undecided"), (40, "differs")]),
        {10: 1, 30: 0, 40: -2},
    ),
    "two replicas, of which one is not sure yet": (
        replica(f"{OWN}0", [(10, "no_difference")]) + replica(f"{OWN}1", [(30, "no_difference")]),
        {9: 0, 10: 0, 29: 0, 30: 1},
    ),
    "two replicas that contradict each other": (
        replica(f"{OWN}0", [(10, "no_difference")]) + replica(f"{OWN}1", [(30, "differs")]),
        {10: 0, 30: -2},
    ),
    "a replica that is gone no longer counts": (
        replica(f"{OWN}0", [(10, "no_difference")]) + replica(f"{OWN}1", [], end=20),
        {15: 0, 25: 1},
    ),
    "nothing is compared": ([], {0: 0, 30: 0}),
    "other releases and namespaces": (
        replica("other-real-time-vision-api-0", [(5, "differs")])
        + replica(f"{OWN}0", [(5, "differs")], namespace="staging"),
        {30: 0},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_gate_has_the_verdict_of_all_replicas(case: str, tmp_path: Path) -> None:
    series, expected = CASES[case]
    checks = [
        {
            "expr": query,
            "eval_time": f"{minute}m",
            "exp_samples": [{"labels": "{}", "value": value}],
        }
        for query in queries().values()
        for minute, value in expected.items()
    ]
    run_rule_tests(tmp_path, [], [{"interval": "1m", "input_series": series, "promql_expr_test": checks}])


def test_the_conditions_of_the_gate_tell_the_three_verdicts_apart() -> None:
    metric = argo_metric()
    found = {
        value: (
            condition_holds(metric["successCondition"], value),
            condition_holds(metric["failureCondition"], value),
        )
        for value in (1.0, 0.0, -1.0, -2.0)
    }
    assert found == {1.0: (True, False), 0.0: (False, False), -1.0: (False, True), -2.0: (False, True)}
    assert metric["inconclusiveLimit"] >= metric["count"], "an undecided day ends without a failure"
    assert "{min: 1}" in (FOLDER / "flagger.yaml").read_text()


def condition_holds(condition: str, value: float) -> bool:
    """Evaluate a condition such as `result[0] < 0`."""
    left, operator, right = condition.split()
    assert left == "result[0]"
    return {"==": value == float(right), "<": value < float(right)}[operator]


def test_both_gates_ask_the_same_of_the_pods_of_the_release(chart: Chart) -> None:
    assert len(set(queries().values())) == 1
    workload = chart.render(release="detect").workload["metadata"]
    assert workload["name"] == OWN.rstrip("-")
    assert manifest("argo-rollouts.yaml")["metadata"]["namespace"] == "vision"
