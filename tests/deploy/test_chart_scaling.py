"""Tests how the chart scales replicas and with which queries."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamer.protocol.wire import DropReason
from tests.deploy import chart_tools
from tests.deploy.chart import NAMESPACE, VALUE_SETS, Chart, Manifests
from tests.deploy.served_metrics import served_series

#: Labels that Prometheus adds to the series that it scrapes.
TARGET_LABELS = {"namespace", "pod"}
QUERIES = {"streams": 0, "dropped-percent": 1, "queue-age-ms": 2}


def keda_queries(manifests: Manifests) -> list[str]:
    return [trigger["metadata"]["query"] for trigger in manifests.one("ScaledObject")["spec"]["triggers"]]


def adapter_rules(manifests: Manifests) -> list[dict[str, Any]]:
    values = yaml.safe_load(manifests.one("ConfigMap", "-adapter-rules")["data"]["values.yaml"])
    return list(values["rules"]["custom"])


def as_the_adapter_asks(rule: dict[str, Any]) -> str:
    """Return the query that prometheus-adapter sends for all pods of a namespace."""
    query = str(rule["metricsQuery"])
    return query.replace("<<.LabelMatchers>>", 'namespace="vision"').replace("<<.GroupBy>>", "pod")


def test_only_one_of_both_scalers_is_made(chart: Chart) -> None:
    fixed, hpa, keda = chart.render(), chart.render(None, "hpa"), chart.render(None, "keda")
    kinds = ("HorizontalPodAutoscaler", "ScaledObject")
    assert [[len(m.of(kind)) for kind in kinds] for m in (fixed, hpa, keda)] == [[0, 0], [1, 0], [0, 1]]
    assert fixed.workload["spec"]["replicas"] == 1
    for scaled in (hpa, keda):
        assert "replicas" not in scaled.workload["spec"], "an upgrade must not undo what the scaler did"


@pytest.mark.parametrize("spool", [True, False])
@pytest.mark.parametrize("name", ["hpa", "keda"])
def test_a_scaler_is_for_the_workload_there_is(chart: Chart, name: str, spool: bool) -> None:
    manifests = chart.render({"persistence": {"spool": {"enabled": spool}}}, name)
    kind = "HorizontalPodAutoscaler" if name == "hpa" else "ScaledObject"
    assert manifests.one(kind)["spec"]["scaleTargetRef"] == {
        "apiVersion": "apps/v1",
        "kind": manifests.workload["kind"],
        "name": manifests.workload["metadata"]["name"],
    }


def test_the_hpa_follows_metrics_that_the_adapter_makes_of_series_that_there_are(chart: Chart) -> None:
    manifests = chart.render(None, "hpa")
    spec = manifests.one("HorizontalPodAutoscaler")["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 6)
    asked = {metric["pods"]["metric"]["name"]: metric["pods"]["target"] for metric in spec["metrics"]}
    rules = adapter_rules(manifests)
    assert set(asked) == {rule["name"]["as"] for rule in rules}
    assert [target["averageValue"] for target in asked.values()] == ["16", "5", "150"]
    series = served_series()
    for rule in rules:
        assert rule["seriesQuery"].partition("{")[0] in series
        assert set(rule["resources"]["overrides"]) == {"namespace", "pod"}
    assert spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"] >= 300


def all_queries(chart: Chart) -> list[str]:
    rules = adapter_rules(chart.render(None, "hpa"))
    return [*keda_queries(chart.render(None, "keda")), *map(as_the_adapter_asks, rules)]


def test_queries_name_series_and_labels_that_the_service_has(chart: Chart) -> None:
    series = served_series()
    reasons = {reason.value for reason in DropReason}
    for query in all_queries(chart):
        found = re.findall(r"([a-z_]+)\{([^}]*)\}", query)
        assert found
        for name, matchers in found:
            labels = set(re.findall(r'([a-z]+)=~?"', matchers))
            assert name in series
            assert labels <= series[name] | TARGET_LABELS
        for matched in re.findall(r'reason=~"([^"]*)"', query):
            assert set(matched.split("|")) < reasons


def series_of(
    pod: str, *, streams: int, received: int, superseded: int, waited_ms: int
) -> list[dict[str, str]]:
    """Return one pod's series as input for promtool: counts are per second, ``waited_ms`` is per frame."""
    where = f'namespace="{NAMESPACE}",pod="{pod}",version="v1"'
    socket = f'{where},transport="websocket"'
    stage = "object_detection_stage_duration_seconds"

    def rising(rate: float) -> str:
        return f"0+{rate * 15}x40"

    frames = "object_detection_frames"
    return [
        {"series": f"object_detection_streams{{{socket}}}", "values": f"{streams}x40"},
        {"series": f"{frames}_received_total{{{socket}}}", "values": rising(received)},
        {"series": f'{frames}_dropped_total{{{socket},reason="superseded"}}', "values": rising(superseded)},
        {
            "series": f'{frames}_dropped_total{{{socket},reason="decode_error"}}',
            "values": rising(received / 2),
        },
        {"series": f'{stage}_sum{{{where},stage="mailbox"}}', "values": rising(received * waited_ms / 1500)},
        {"series": f'{stage}_sum{{{where},stage="queue"}}', "values": rising(received * waited_ms / 3000)},
        {"series": f'{stage}_sum{{{where},stage="decode"}}', "values": rising(received * 7)},
        {"series": f'{stage}_count{{{where},stage="queue"}}', "values": rising(received)},
        {"series": f'{stage}_count{{{where},stage="mailbox"}}', "values": rising(received)},
    ]


def sample(labels: str, value: float) -> dict[str, Any]:
    return {"labels": labels, "value": value}


def test_queries_say_what_hurts(chart: Chart, tmp_path: Path) -> None:
    """Test with an idle and a busy replica; KEDA's queries must not count a pod of another release."""
    manifests = chart.render(None, "keda")
    name = manifests.workload["metadata"]["name"]
    busy = {"streams": 12, "received": 40, "superseded": 4, "waited_ms": 90}
    idle = {"streams": 0, "received": 0, "superseded": 0, "waited_ms": 0}
    inputs = [*series_of(f"{name}-0", **busy), *series_of(f"{name}-1", **idle)]
    inputs += series_of(f"{name}-two-0", **busy)
    checks = [
        {"expr": f"round({query}, 0.001)", "eval_time": "8m", "exp_samples": [sample("{}", value)]}
        for query, value in zip(keda_queries(manifests), (12, 10, 90), strict=True)
    ]
    rules = adapter_rules(chart.render(None, "hpa"))
    for rule, value in zip(rules, (12, 10, 90), strict=True):
        pods = [(f"{name}-0", value), (f"{name}-1", 0), (f"{name}-two-0", value)]
        expected = [sample(f'{{pod="{pod}"}}', number) for pod, number in pods]
        asked = f"round({as_the_adapter_asks(rule)}, 0.001)"
        checks.append({"expr": asked, "eval_time": "8m", "exp_samples": expected})
    (tmp_path / "no.yml").write_text("groups: []\n")
    tests = {
        "rule_files": ["no.yml"],
        "tests": [{"interval": "15s", "input_series": inputs, "promql_expr_test": checks}],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(tests))
    done = subprocess.run(
        [chart_tools.need_promtool(), "test", "rules", str(tmp_path / "test.yml")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_keda_asks_prometheus_for_this_release(chart: Chart) -> None:
    triggers = chart.render(None, "keda").one("ScaledObject")["spec"]["triggers"]
    assert [trigger["name"] for trigger in triggers] == list(QUERIES)
    assert [trigger["metricType"] for trigger in triggers] == ["AverageValue", "Value", "Value"]
    assert [trigger["metadata"]["threshold"] for trigger in triggers] == ["16", "5", "150"]
    deployment = chart.render({"persistence": {"spool": {"enabled": False}}}, "keda")
    name = deployment.workload["metadata"]["name"]
    pattern = re.search(r'pod=~"([^"]*)"', keda_queries(deployment)[0])
    assert pattern
    assert re.fullmatch(pattern[1], f"{name}-7d9fb5c6b4-x2vqp")
    assert not re.fullmatch(pattern[1], f"{name}-coturn-7d9fb5c6b4-x2vqp")
    given = {"autoscaling": {"keda": {"authenticationRef": "prometheus"}}}
    for trigger in chart.render(given, "keda").one("ScaledObject")["spec"]["triggers"]:
        assert trigger["authenticationRef"] == {"name": "prometheus"}


def test_disruptions_take_one_replica_at_a_time(chart: Chart) -> None:
    assert chart.render().of("PodDisruptionBudget") == [], (
        "one replica must not keep a node from being drained"
    )
    for name in ("keda", "hpa", "gateway"):
        manifests = chart.render(None, name)
        budget = manifests.one("PodDisruptionBudget")["spec"]
        assert budget["maxUnavailable"] == 1
        assert budget["selector"] == manifests.workload["spec"]["selector"]
    share = chart.render({"podDisruptionBudget": {"maxUnavailable": "25%"}}, "hpa")
    assert share.one("PodDisruptionBudget")["spec"]["maxUnavailable"] == "25%"


def test_every_replica_is_scraped_once(chart: Chart) -> None:
    manifests = chart.render(None, "keda")
    monitor = manifests.one("ServiceMonitor")
    assert monitor["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    wanted = monitor["spec"]["selector"]["matchLabels"]
    selected = [
        service
        for service in manifests.of("Service")
        if wanted.items() <= service["metadata"]["labels"].items()
    ]
    assert [service["metadata"]["name"] for service in selected] == [manifests.workload["metadata"]["name"]]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["path"] == "/metrics"
    assert endpoint["port"] in {port["name"] for port in selected[0]["spec"]["ports"]}


def test_nothing_is_made_for_operators_that_are_not_asked_for(chart: Chart) -> None:
    kinds = {manifest["kind"] for manifest in chart.render().all}
    assert kinds == {"StatefulSet", "Service", "ServiceAccount", "NetworkPolicy"}
    assert {"keda", "hpa"} <= set(VALUE_SETS)
