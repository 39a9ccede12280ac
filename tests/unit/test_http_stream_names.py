"""Tests that metrics and drift status lose what names streams, and nothing else."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from streamer.http.caller import hide_in_drift_status, hide_in_metrics


def test_series_that_name_streams_and_classes_are_left_out_of_metrics() -> None:
    registry = CollectorRegistry()
    Gauge("data_drift_active", "1 while a group is in drift.", ["group"], registry=registry).labels(
        "gate"
    ).set(1)
    odd = Counter("odd", "With more labels.", ["a", "group", "z"], registry=registry)
    odd.labels("x", 'a "quoted" \\ name\n', "y").inc()
    Counter("kept", 'Says group="x" in its help.', ["grouping"], registry=registry).labels("seen").inc()
    Counter("plain", "Without labels.", registry=registry).inc()
    Counter("boxes", "By class.", ["version", "label"], registry=registry).labels("v1", "mug").inc()
    text = hide_in_metrics(generate_latest(registry)).decode()
    assert "gate" not in text
    assert "quoted" not in text
    assert "mug" not in text
    for line in ('kept_total{grouping="seen"} 1.0', "plain_total 1.0", "# TYPE data_drift_active gauge"):
        assert line in text.splitlines()


def test_groups_are_left_out_of_the_status_of_drift() -> None:
    body: Any = {
        "status": "drift",
        "groups": {"gate": {"moved": ["x"]}},
        "reference": {"sha256": "a", "groups": {"b": 1}},
    }
    reduced: Any = hide_in_drift_status(body)
    assert reduced == {"status": "drift", "groups": {}, "reference": {"sha256": "a", "groups": {}}}
    assert body["groups"] == {"gate": {"moved": ["x"]}}, "the original stays"
    without: list[Any] = [{"status": "disabled"}, {"groups": {}, "reference": None}]
    for unchanged in without:
        assert hide_in_drift_status(unchanged) == unchanged
