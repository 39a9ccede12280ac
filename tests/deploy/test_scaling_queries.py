"""Evaluates the queries of the scalers with promtool on recorded series of several replicas and releases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.deploy.chart import NAMESPACE, Chart
from tests.deploy.rules import run_rule_tests
from tests.deploy.test_chart_scaling import adapter_rules, as_the_adapter_asks, keda_queries

#: Minute at which scrapes of a replica begin to fail, if they do.
FAILS_AT = 4
_STREAMS = "object_detection_streams"

Sample = dict[str, Any]


def series_of(
    pod: str,
    *,
    streams: int = 0,
    received: int = 0,
    superseded: int = 0,
    waited_ms: int = 0,
    refused: float = 0,
    scraped: bool = True,
) -> list[Sample]:
    """Return one pod's series as input for promtool, one value in 15 s for 10 minutes.

    Counts are per second, ``waited_ms`` is per frame. Without ``scraped``, scrapes fail from minute
    ``FAILS_AT`` on.
    """
    where = f'namespace="{NAMESPACE}",pod="{pod}"'
    version = f'{where},version="v1"'
    socket = f'{version},transport="websocket"'
    stage = "object_detection_stage_duration_seconds"
    frames = "object_detection_frames"
    count, end = (40, "") if scraped else (FAILS_AT * 4 - 1, " stale")

    def rising(rate: float) -> str:
        return f"0+{rate * 15}x{count}{end}"

    values = {
        f"{_STREAMS}{{{socket}}}": f"{streams}x{count}{end}",
        f"{frames}_received_total{{{socket}}}": rising(received),
        f'{frames}_dropped_total{{{socket},reason="superseded"}}': rising(superseded),
        f'{frames}_dropped_total{{{socket},reason="decode_error"}}': rising(received / 2),
        f'{stage}_sum{{{version},stage="mailbox"}}': rising(received * waited_ms / 1500),
        f'{stage}_sum{{{version},stage="queue"}}': rising(received * waited_ms / 3000),
        f'{stage}_sum{{{version},stage="decode"}}': rising(received * 7),
        f'{stage}_count{{{version},stage="queue"}}': rising(received),
        f'{stage}_count{{{version},stage="mailbox"}}': rising(received),
        f'object_detection_refused_total{{{where},class="live",reason="saturated"}}': rising(refused),
        f'object_detection_refused_total{{{where},class="live",reason="quota"}}': rising(received),
        f'object_detection_refused_total{{{where},class="post",reason="saturated"}}': rising(received),
        f"up{{{where}}}": "1x40" if scraped else f"1x{count} 0x{39 - count}",
    }
    return [{"series": name, "values": text} for name, text in values.items()]


BUSY: dict[str, Any] = {"streams": 12, "received": 40, "superseded": 4, "waited_ms": 90}
#: Situations of a release with one replica, and the values of KEDA's queries after eight minutes, None for no
#: value.
SITUATIONS: dict[str, tuple[dict[str, Any], tuple[float | None, ...]]] = {
    "busy": (BUSY, (12, 10, 90, 0)),
    "not scraped": (BUSY | {"scraped": False}, (12, None, None, None)),
    "refuses streams": ({"streams": 7, "received": 14, "refused": 0.7}, (7, 0, 0, 150)),
    "idle": ({}, (0, 0, 0, 0)),
}


def samples(value: float | None) -> list[Sample]:
    return [] if value is None else [{"labels": "{}", "value": value}]


def check(query: str, minute: int, expected: list[Sample]) -> dict[str, Any]:
    return {"expr": f"round({query}, 0.001)", "eval_time": f"{minute}m", "exp_samples": expected}


def test_kedas_queries_see_the_situation_of_their_own_release(chart: Chart, tmp_path: Path) -> None:
    releases = {name: chart.render(None, "keda", release=name) for name in ("detect", "detect-two")}
    first, second = (keda_queries(manifests) for manifests in releases.values())
    pods = [f"{manifests.workload['metadata']['name']}-0" for manifests in releases.values()]
    tests = []
    for here, (own, values) in SITUATIONS.items():
        for there, (others, other_values) in SITUATIONS.items():
            pairs = [*zip(first, values, strict=True), *zip(second, other_values, strict=True)]
            tests.append(
                {
                    "name": f"{here}, and {there}",
                    "interval": "15s",
                    "input_series": series_of(pods[0], **own) + series_of(pods[1], **others),
                    "promql_expr_test": [check(query, 8, samples(value)) for query, value in pairs],
                }
            )
    run_rule_tests(tmp_path, [], tests)


def test_the_adapter_gets_values_for_each_pod(chart: Chart, tmp_path: Path) -> None:
    rules = adapter_rules(chart.render(None, "hpa"))
    inputs = [sample for name, (own, _) in SITUATIONS.items() for sample in series_of(name[:4], **own)]
    pods = {name[:4]: values for name, (own, values) in SITUATIONS.items() if own.get("scraped", True)}
    checks = [
        check(
            as_the_adapter_asks(rule),
            8,
            [{"labels": f'{{pod="{pod}"}}', "value": values[number]} for pod, values in pods.items()],
        )
        for number, rule in enumerate(rules)
    ]
    run_rule_tests(tmp_path, [], [{"interval": "15s", "input_series": inputs, "promql_expr_test": checks}])


def test_streams_of_a_replica_that_is_not_scraped_count_for_fifteen_minutes(
    chart: Chart, tmp_path: Path
) -> None:
    manifests = chart.render(None, "keda")
    query, name = keda_queries(manifests)[0], manifests.workload["metadata"]["name"]

    def streams(number: int, values: str, instance: str = "a") -> Sample:
        labels = f'namespace="{NAMESPACE}",pod="{name}-{number}",instance="{instance}",version="v1"'
        return {"series": f'{_STREAMS}{{{labels},transport="websocket"}}', "values": values}

    def up(number: int, values: str, instance: str = "a") -> Sample:
        labels = f'namespace="{NAMESPACE}",pod="{name}-{number}",instance="{instance}"'
        return {"series": f"up{{{labels}}}", "values": values}

    inputs = [
        *(streams(0, "5x40"), up(0, "1x40")),  # scraped
        *(streams(1, "12x9 stale"), up(1, "1x9 0x30")),  # not scraped from minute 10 on
        *(streams(2, "7x9 stale"), up(2, "1x9 stale")),  # deleted in minute 10
        # Restarted at another address in minute 10.
        *(streams(3, "9x9 stale", "a"), up(3, "1x9 stale", "a")),
        *(streams(3, "_x10 2x30", "b"), up(3, "_x10 1x30", "b")),
    ]
    values = {9: 5 + 12 + 7 + 9, 12: 5 + 12 + 2, 23: 5 + 12 + 2, 26: 5 + 2}
    checks = [check(query, minute, samples(value)) for minute, value in values.items()]
    run_rule_tests(tmp_path, [], [{"interval": "1m", "input_series": inputs, "promql_expr_test": checks}])


@pytest.mark.parametrize(
    ("refused", "open_streams", "percent"), [(2, 4, 0), (6, 4, 120), (120, 4, 200), (6, 0, 125)]
)
def test_a_few_refusals_are_no_demand_and_many_ask_for_no_more_than_twice_the_replicas(
    chart: Chart, tmp_path: Path, refused: int, open_streams: int, percent: float
) -> None:
    """Test with ``refused`` refusals in two minutes."""
    manifests = chart.render(None, "keda")
    pod = f"{manifests.workload['metadata']['name']}-0"
    inputs = series_of(pod, streams=open_streams, refused=refused / 120)
    checks = [check(keda_queries(manifests)[3], 8, samples(percent))]
    run_rule_tests(tmp_path, [], [{"interval": "15s", "input_series": inputs, "promql_expr_test": checks}])
