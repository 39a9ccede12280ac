"""Tests how the chart scales replicas and with which queries."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.deploy import chart_tools
from tests.deploy.chart import VALUE_SETS, Chart, Manifests, Refused
from tests.deploy.crd_models import find_faults
from tests.deploy.served_metrics import served_series

#: Labels that Prometheus adds to the series that it scrapes.
TARGET_LABELS = {"namespace", "pod"}
#: Values with which the number of streams has a target, too.
WITH_STREAMS = {"autoscaling": {"targets": {"streams": 16}}}


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
    # What fits into the ephemeral storage of a pod, where the samples are without a volume.
    values = {"settings": {"SAMPLES_MAX_BYTES": 1 << 30}}
    manifests = chart.render(values | {"persistence": {"spool": {"enabled": spool, "size": "4Gi"}}}, name)
    kind = "HorizontalPodAutoscaler" if name == "hpa" else "ScaledObject"
    assert manifests.one(kind)["spec"]["scaleTargetRef"] == {
        "apiVersion": "apps/v1",
        "kind": manifests.workload["kind"],
        "name": manifests.workload["metadata"]["name"],
    }


def test_a_known_hour_may_have_a_trigger_of_its_own(chart: Chart) -> None:
    hour = {"timezone": "Europe/Berlin", "start": "30 5 * * *", "end": "0 7 * * *", "desiredReplicas": "12"}
    cron = {"type": "cron", "metadata": hour}
    values = {"autoscaling": {"keda": {"extraTriggers": [cron]}}}
    triggers = chart.render(values, "keda").one("ScaledObject")["spec"]["triggers"]
    assert [trigger["type"] for trigger in triggers] == ["prometheus", "cron"]
    assert triggers[-1] == cron


def test_the_hpa_follows_metrics_that_the_adapter_makes_of_series_that_there_are(chart: Chart) -> None:
    manifests = chart.render(None, "hpa")
    spec = manifests.one("HorizontalPodAutoscaler")["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 6)
    asked = {metric["pods"]["metric"]["name"]: metric["pods"]["target"] for metric in spec["metrics"]}
    rules = adapter_rules(manifests)
    assert asked == {"object_detection_load_percent": {"type": "AverageValue", "averageValue": "75"}}
    assert {rule["name"]["as"] for rule in rules} == {*asked, "object_detection_streams"}
    series = served_series()
    for rule in rules:
        assert rule["seriesQuery"].partition("{")[0] in series
        assert set(rule["resources"]["overrides"]) == {"namespace", "pod"}
    assert spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"] >= 300


def test_the_number_of_streams_can_be_a_second_target(chart: Chart) -> None:
    hpa = chart.render(WITH_STREAMS, "hpa")
    metrics = hpa.one("HorizontalPodAutoscaler")["spec"]["metrics"]
    targets = {
        metric["pods"]["metric"]["name"]: metric["pods"]["target"]["averageValue"] for metric in metrics
    }
    assert targets == {"object_detection_load_percent": "75", "object_detection_streams": "16"}
    assert set(targets) == {rule["name"]["as"] for rule in adapter_rules(hpa)}
    triggers = chart.render(WITH_STREAMS, "keda").one("ScaledObject")["spec"]["triggers"]
    assert [(each["name"], each["metadata"]["threshold"]) for each in triggers] == [
        ("load-percent", "75"),
        ("streams", "16"),
    ]


@pytest.mark.parametrize("name", ["droppedPercent", "queueAgeMs", "demandPercent"])
@pytest.mark.parametrize("enabled", [True, False])
def test_a_target_that_no_longer_exists_is_refused_with_its_replacement(
    chart: Chart, name: str, enabled: bool
) -> None:
    values = {"autoscaling": {"enabled": enabled, "targets": {name: 50}}}
    text = f"autoscaling.targets.{name} has been removed: set autoscaling.targets.loadPercent instead"
    with pytest.raises(Refused, match=text):
        chart.text(values, "hpa")


@pytest.mark.parametrize("targets", [{"loadPercent": 0}, {"loadPercent": 101}, {"loadPercent": None}])
def test_a_target_that_cannot_be_is_refused(chart: Chart, targets: dict[str, int | None]) -> None:
    with pytest.raises(Refused, match="loadPercent"):
        chart.text({"autoscaling": {"targets": targets}}, "hpa")


def test_adapter_rules_are_the_same_for_every_release_and_set_of_values(chart: Chart) -> None:
    first = chart.render(None, "hpa", release="detect")
    second = chart.render(WITH_STREAMS, "hpa", release="another")
    assert adapter_rules(first) == adapter_rules(second)


def all_queries(chart: Chart) -> list[str]:
    rules = adapter_rules(chart.render(None, "hpa"))
    return [*keda_queries(chart.render(WITH_STREAMS, "keda")), *map(as_the_adapter_asks, rules)]


def test_queries_name_series_and_labels_that_the_service_has(chart: Chart) -> None:
    series = served_series()
    for query in all_queries(chart):
        found = re.findall(r"([a-z_]+)\{([^}]*)\}", query)
        assert found
        for name, matchers in found:
            labels = set(re.findall(r'([a-z]+)=~?"', matchers))
            assert name in series or name == "up"
            assert labels <= series.get(name, set()) | TARGET_LABELS
        for grouping in re.findall(r"by \(([a-z, ]+)\)", query):
            assert set(grouping.split(", ")) <= {"pod", "version", "class", "transport"}


def test_keda_asks_prometheus_for_this_release(chart: Chart) -> None:
    triggers = chart.render(None, "keda").one("ScaledObject")["spec"]["triggers"]
    assert [(trigger["name"], trigger["metadata"]["threshold"]) for trigger in triggers] == [
        ("load-percent", "75")
    ]
    # With `Value`, KEDA would multiply the replicas by value over target, and streams that stay where they
    # are would keep the value high.
    both = chart.render(WITH_STREAMS, "keda").one("ScaledObject")["spec"]["triggers"]
    assert [trigger["metricType"] for trigger in both] == ["AverageValue"] * 2
    deployment = chart.render({"persistence": {"spool": {"enabled": False}}}, "keda")
    name = deployment.workload["metadata"]["name"]
    pattern = re.search(r'pod=~"([^"]*)"', keda_queries(deployment)[0])
    assert pattern
    assert re.fullmatch(pattern[1], f"{name}-7d9fb5c6b4-x2vqp")
    assert not re.fullmatch(pattern[1], f"{name}-coturn-7d9fb5c6b4-x2vqp")
    given = {"autoscaling": {"keda": {"authenticationRef": "prometheus"}}}
    for trigger in chart.render(given, "keda").one("ScaledObject")["spec"]["triggers"]:
        assert trigger["authenticationRef"] == {"name": "prometheus"}


def test_a_query_without_a_result_is_an_error_for_keda_and_not_zero(chart: Chart) -> None:
    spec = chart.render(None, "keda").one("ScaledObject")["spec"]
    assert {trigger["metadata"]["ignoreNullValues"] for trigger in spec["triggers"]} == {"false"}
    # KEDA then leaves the number of replicas as it is, unless somebody wants another one.
    assert "fallback" not in spec


def test_keda_falls_back_to_a_number_of_replicas_if_asked_to(chart: Chart) -> None:
    scalers = []
    for behavior in ("", "currentReplicasIfHigher"):
        fallback = {"replicas": 6, "failureThreshold": 4, "behavior": behavior}
        values = {"autoscaling": {"keda": {"fallback": fallback}}}
        scalers.append(chart.render(values, "keda").one("ScaledObject"))
        assert scalers[-1]["spec"]["fallback"] == {key: value for key, value in fallback.items() if value}
    assert find_faults(chart_tools.crd_models(), scalers) == []


@pytest.mark.parametrize("replicas", [2, 10])
def test_a_fallback_outside_the_limits_is_refused(chart: Chart, replicas: int) -> None:
    with pytest.raises(Refused, match=f"fallback.replicas is {replicas}: .* 3, .* 9, or 0"):
        chart.text({"autoscaling": {"keda": {"fallback": {"replicas": replicas}}}}, "keda")


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
    assert kinds == {"StatefulSet", "Service", "ServiceAccount", "NetworkPolicy", "Pod"}
    assert not chart.render({"helmTest": {"enabled": False}}).of("Pod")
    assert {"keda", "hpa"} <= set(VALUE_SETS)
