"""Evaluates the queries of the scalers with promtool on recorded series of several replicas and releases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.deploy.chart import NAMESPACE, Chart
from tests.deploy.rules import run_rule_tests
from tests.deploy.test_chart_scaling import WITH_STREAMS, adapter_rules, as_the_adapter_asks, keda_queries

#: Minute at which scrapes of a replica begin to fail, if they do.
FAILS_AT = 4

Sample = dict[str, Any]


def gauge(pod: str, name: str, values: str, labels: str = 'version="v1"', instance: str = "a") -> Sample:
    """Return a series of a pod as input for promtool; ``values`` are in its notation."""
    where = f'namespace="{NAMESPACE}",pod="{pod}",instance="{instance}"'
    return {"series": f"{name}{{{where}{',' if labels else ''}{labels}}}", "values": values}


def fps(
    pod: str,
    kind: str,
    values: str,
    *,
    work: str = "",
    version: str = "v1",
    instance: str = "a",
) -> Sample:
    """Return a series in frames per second; ``work`` is the class of the work."""
    labels = f'version="{version}"' + (f',class="{work}"' if work else "")
    return gauge(pod, f"object_detection_{kind}_frames_per_second", values, labels, instance)


def series_of(
    pod: str,
    *,
    streams: int = 0,
    live: float = 0,
    posts: float = 0,
    refused: float = 0,
    granted: float | None = None,
    capacity: float | None = 100,
    v2_live: float = 0,
    v2_capacity: float | None = None,
    scraped: bool = True,
) -> list[Sample]:
    """Return one pod's series as input for promtool, one value in 15 s for 10 minutes.

    Rates are in frames per second. Without ``scraped``, scrapes fail from minute ``FAILS_AT`` on.
    """
    count, end = (40, "") if scraped else (FAILS_AT * 4 - 1, " stale")

    def still(value: float) -> str:
        return f"{value}x{count}{end}"

    values = [
        gauge(pod, "object_detection_streams", still(streams), 'version="v1",transport="websocket"'),
        gauge(pod, "object_detection_streams", still(0), 'version="v1",transport="whip"'),
        fps(pod, "demand", still(live), work="live"),
        fps(pod, "demand", still(posts), work="post"),
        fps(pod, "demand", still(v2_live), work="live", version="v2"),
        fps(pod, "refused", still(refused), work="live"),
        fps(pod, "refused", still(0), work="post"),
        fps(pod, "refused", still(0), work="live", version="v2"),
        fps(pod, "granted", still(live if granted is None else granted)),
        # Refusals by quota, drops and restarts of counters are not looked at.
        gauge(pod, "object_detection_refused_total", f"0+9x{count}{end}", 'class="live",reason="quota"'),
        gauge(pod, "up", "1x40" if scraped else f"1x{count} 0x{39 - count}", ""),
    ]
    if capacity is not None:
        values.append(fps(pod, "capacity", still(capacity)))
    if v2_capacity is not None:
        values.append(fps(pod, "capacity", still(v2_capacity), version="v2"))
    return values


#: Situations of a release with one replica, with the load in percent and the number of streams, as the
#: queries see them after eight minutes.
SITUATIONS: dict[str, tuple[dict[str, Any], tuple[float, float]]] = {
    "busy": ({"streams": 12, "live": 60, "posts": 5}, (65, 12)),
    "not scraped": ({"streams": 12, "live": 60, "posts": 5, "scraped": False}, (65, 12)),
    "refuses streams": ({"streams": 20, "live": 100, "refused": 30}, (130, 20)),
    "idle": ({}, (0, 0)),
}


def samples(value: float | None) -> list[Sample]:
    return [] if value is None else [{"labels": "{}", "value": value}]


def check(query: str, minute: int, expected: list[Sample]) -> dict[str, Any]:
    return {"expr": f"round({query}, 0.001)", "eval_time": f"{minute}m", "exp_samples": expected}


def run(folder: Path, inputs: list[Sample], checks: list[dict[str, Any]], interval: str = "15s") -> None:
    tests = [{"interval": interval, "input_series": inputs, "promql_expr_test": checks}]
    run_rule_tests(folder, [], tests)


def release(chart: Chart) -> tuple[str, str]:
    """Return KEDA's query for the load of a release, and the name of its pods without their number."""
    manifests = chart.render(None, "keda")
    return keda_queries(manifests)[0], manifests.workload["metadata"]["name"]


def test_kedas_queries_see_the_situation_of_their_own_release(chart: Chart, tmp_path: Path) -> None:
    releases = {name: chart.render(WITH_STREAMS, "keda", release=name) for name in ("detect", "detect-two")}
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
    """A pod without a value is Kubernetes' business: it assumes that the pod is at the target."""
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
    run(tmp_path, inputs, checks)


def test_both_scalers_ask_for_the_same_number_of_replicas(chart: Chart, tmp_path: Path) -> None:
    """The sum of what the HPA averages is what KEDA divides by the target."""
    query, name = release(chart)
    rule = as_the_adapter_asks(adapter_rules(chart.render(None, "hpa"))[0])
    loads = {0: 100.0, 1: 40.0, 2: 130.0}
    inputs = [each for number, live in loads.items() for each in series_of(f"{name}-{number}", live=live)]
    run(tmp_path, inputs, [check(query, 8, samples(270)), check(f"sum({rule})", 8, samples(270))])


@pytest.mark.parametrize(
    ("situation", "percent"),
    [
        pytest.param({"live": 90, "granted": 40}, 90, id="rate-limited"),
        pytest.param({"live": 300, "granted": 100, "refused": 50}, 350, id="rate-limited and refused"),
        pytest.param({"live": 30, "v2_live": 30, "v2_capacity": 60}, 80, id="two versions"),
        pytest.param({"live": 30, "v2_live": 30, "v2_capacity": None}, 30, id="unknown capacity of v2"),
        pytest.param({"live": 30, "v2_live": 30, "v2_capacity": 0}, 30, id="capacity of v2 is 0"),
        pytest.param({"live": 30, "capacity": None}, None, id="unknown capacity"),
        pytest.param({"posts": 150}, 150, id="posts only"),
    ],
)
def test_the_load_of_one_replica(
    chart: Chart, tmp_path: Path, situation: dict[str, Any], percent: float | None
) -> None:
    query, name = release(chart)
    rule = as_the_adapter_asks(adapter_rules(chart.render(None, "hpa"))[0])
    pod = f"{name}-0"
    of_pod = [] if percent is None else [{"labels": f'{{pod="{pod}"}}', "value": percent}]
    run(tmp_path, series_of(pod, **situation), [check(query, 8, samples(percent)), check(rule, 8, of_pod)])


def test_more_replicas_do_not_raise_the_load_of_streams_that_stay(chart: Chart, tmp_path: Path) -> None:
    """With a share of the release, as before, KEDA would add replicas without end."""
    query, name = release(chart)
    full = series_of(f"{name}-0", live=150)
    idle = [series for number in range(1, 6) for series in series_of(f"{name}-{number}")]
    starting = series_of(f"{name}-6", capacity=None)
    for inputs in (full, full + idle, full + idle + starting):
        run(tmp_path, inputs, [check(query, 8, samples(150))])


def test_a_replica_that_two_jobs_scrape_counts_once(chart: Chart, tmp_path: Path) -> None:
    query, name = release(chart)
    inputs = series_of(f"{name}-0", live=60, posts=5)
    twice = [{**each, "series": each["series"].replace('instance="a"', 'instance="b"')} for each in inputs]
    run(tmp_path, inputs + twice, [check(query, 8, samples(65))])


def test_a_replica_that_is_not_scraped_counts_for_fifteen_minutes(chart: Chart, tmp_path: Path) -> None:
    query, name = release(chart)

    def replica(number: int, live: str, up: str, instance: str = "a") -> list[Sample]:
        pod, ends = f"{name}-{number}", live.partition("x")
        same = {"0": f"0x{ends[2]}", "100": f"100x{ends[2]}"}
        if live.startswith("_"):
            later = live.split(" ")
            same = {value: f"{later[0]} {value}x{later[1].partition('x')[2]}" for value in same}
        return [
            fps(pod, "demand", live, work="live", instance=instance),
            fps(pod, "refused", same["0"], work="live", instance=instance),
            fps(pod, "capacity", same["100"], instance=instance),
            gauge(pod, "up", up, "", instance),
        ]

    inputs = [
        *replica(0, "5x40", "1x40"),  # scraped
        *replica(1, "12x9 stale", "1x9 0x30"),  # not scraped from minute 10 on
        *replica(2, "7x9 stale", "1x9 stale"),  # deleted in minute 10
        # Restarted at another address in minute 10, with fewer streams.
        *replica(3, "9x9 stale", "1x9 stale"),
        *replica(3, "_x10 2x30", "_x10 1x30", "b"),
    ]
    values = {9: 5 + 12 + 7 + 9, 12: 5 + 12 + 2, 23: 5 + 12 + 2, 26: 5 + 2}
    run(tmp_path, inputs, [check(query, minute, samples(value)) for minute, value in values.items()], "1m")


def test_an_interrupted_scrape_of_all_replicas_gives_no_value_in_the_end(
    chart: Chart, tmp_path: Path
) -> None:
    """No value is an error for KEDA, which then leaves the number of replicas as it is."""
    query, name = release(chart)
    inputs = [
        fps(f"{name}-0", "demand", "60x9 stale", work="live"),
        fps(f"{name}-0", "refused", "0x9 stale", work="live"),
        fps(f"{name}-0", "capacity", "100x9 stale"),
        gauge(f"{name}-0", "up", "1x9 0x40", ""),
    ]
    run(tmp_path, inputs, [check(query, 20, samples(60)), check(query, 26, samples(None))], "1m")


def test_a_container_that_restarts_at_its_address_has_the_load_of_its_new_clients(
    chart: Chart, tmp_path: Path
) -> None:
    """Its series pause while models load; the last values count meanwhile, because `up` is 0."""
    query, name = release(chart)
    inputs = [
        fps(f"{name}-0", "demand", "60x9 stale _x2 0x2 30x20", work="live"),
        fps(f"{name}-0", "refused", "0x9 stale _x2 0x2 0x20", work="live"),
        fps(f"{name}-0", "capacity", "100x9 stale _x3 120x22"),
        gauge(f"{name}-0", "up", "1x9 0x2 1x24", ""),
    ]
    values = {9: 60, 11: 60, 14: 0, 20: 25}
    run(tmp_path, inputs, [check(query, minute, samples(value)) for minute, value in values.items()], "1m")
