"""`GET /versions` adds up what all processes have measured, and says why fields are absent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import TypeAdapter

from inference.core.detections import Boxes
from inference.ipc.served_model import ServedModel
from inference.models.model import Family, ModelInfo, Placement
from streamer.accounting.box_metrics import MAX_LABELS, OTHER, BoxMetrics
from streamer.accounting.version_figures import Timing, VersionFigures, version_figures
from streamer.server.pages import _wants_page
from streamer.server.versions import describe_version
from streamer.server.versions_document import ServedVersion

MODEL_CLASSES = tuple(f"class {number}" for number in range(MAX_LABELS + 2))
BUCKETS = (0.01, 0.1, 1.0)


def model(**fields: Any) -> ServedModel:
    info = ModelInfo(
        "own", "ab" * 32, Family.YOLO, ("mug", "key"), 320, 256, Placement.CENTRED, 114, **fields
    )
    return ServedModel(0, "v1", info, {2: 9.5, 1: 5.0}, in_flight=2, parallel=1, inference_threads=1)


def rows(*numbers: int) -> Boxes:
    """Return a box of each class id."""
    return np.array([[0, 0, 9, 9, 0.5, number] for number in numbers], np.float32).reshape(-1, 6)


@pytest.fixture
def figures() -> dict[str, VersionFigures]:
    """Return the figures of a registry with some of the metrics of the service."""
    registry = CollectorRegistry()
    name = "object_detection"
    frames = ["transport", "version"]
    received = Counter(f"{name}_frames_received", "", frames, registry=registry)
    inferred = Counter(f"{name}_frames_inferred", "", frames, registry=registry)
    dropped = Counter(f"{name}_frames_dropped", "", [*frames, "reason"], registry=registry)
    failed = Counter(f"{name}_frames_failed", "", frames, registry=registry)
    in_flight = Gauge(f"{name}_frames_in_flight", "", frames, registry=registry)
    requests = Counter(f"{name}_requests", "", ["version", "status"], registry=registry)
    failures = Counter(f"{name}_inference_failures_total", "", ["version"], registry=registry)
    request = Histogram(
        f"{name}_request_duration_seconds", "", ["version"], buckets=BUCKETS, registry=registry
    )
    stage = Histogram(
        f"{name}_stage_duration_seconds", "", ["stage", "version"], buckets=BUCKETS, registry=registry
    )
    for transport, count in (("http", 4), ("websocket", 10)):
        received.labels(transport, "v1").inc(count)
        inferred.labels(transport, "v1").inc(count - 2)
    received.labels("whip", "v1")
    dropped.labels("websocket", "v1", "superseded").inc(1)
    dropped.labels("http", "v1", "stale").inc(1)
    dropped.labels("http", "v1", "rate")
    failed.labels("http", "v1").inc(1)
    in_flight.labels("websocket", "v1").set(1)
    for status, count in (("200", 2), ("429", 3), ("503", 0)):
        requests.labels("v1", status).inc(count)
    requests.labels("unknown", "404").inc(9)
    failures.labels("v1").inc(2)
    boxes = BoxMetrics(registry)
    for numbers in ([0, 0, 1], [], [], [0, 1, 0, 0]):
        boxes.count("v1", ("mug", "key"), rows(*numbers))
    for seconds in (0.005, 0.05, 0.05, 5.0):
        request.labels("v1").observe(seconds)
    stage.labels("decode", "v1").observe(0.05)
    stage.labels("queue", "v1")
    return version_figures(registry.collect(), ("v1", "v2"))


def test_the_figures_of_a_version_are_those_of_its_metrics(figures: dict[str, VersionFigures]) -> None:
    document = describe_version(model(), figures["v1"])
    TypeAdapter(ServedVersion).validate_python(document, strict=True)
    traffic = document["traffic"]
    assert traffic["requests"] == 2
    assert traffic["frames"] == {
        "received": 14,
        "answered": 10,
        "answered_by_transport": {"http": 2, "websocket": 8},
        "in_flight": 1,
    }
    assert traffic["boxes"] == {
        "total": 7,
        "frames": 4,
        "without": 2,
        "per_frame": 1.75,
        "by_class": {"key": 2, "mug": 5},
    }
    assert traffic["errors"] == {
        "frames_failed": 1,
        "frames_dropped": {"stale": 1, "superseded": 1},
        "requests": {"429": 3},
        "model_failures": 2,
    }
    assert traffic["latency"]["request"]["count"] == 4
    assert traffic["latency"]["request"]["mean_ms"] == pytest.approx(1276.25)
    assert traffic["latency"]["request"]["p50"] == {"value_ms": 55.0, "low_ms": 10.0, "high_ms": 100.0}
    # The slowest was beyond the last bucket: nobody knows by how much.
    assert traffic["latency"]["request"]["p99"] == {"value_ms": 1000.0, "low_ms": 1000.0, "high_ms": None}
    assert set(traffic["latency"]["stages"]) == {"decode"}
    assert document["model"]["batches"] == [{"size": 1, "run_ms": 5.0}, {"size": 2, "run_ms": 9.5}]
    assert document["model"]["input"] == [320, 256]


def test_absent_figures_have_a_reason_and_no_value(figures: dict[str, VersionFigures]) -> None:
    document = describe_version(model(file="own.onnx"), figures["v2"])
    TypeAdapter(ServedVersion).validate_python(document, strict=True)
    assert document["traffic"]["frames"]["received"] == 0
    assert document["traffic"]["latency"] == {"stages": {}}
    assert document["absent"].keys() == {
        "evaluations",
        "lineage",
        "model.loaded_at",
        "traffic.boxes.per_frame",
        "traffic.latency.model_run",
        "traffic.latency.request",
    }
    assert document["absent"]["evaluations"] == (
        "the manifest of own.onnx has no `metrics`, which `streamer train` and `streamer promote` write"
    )


def test_a_manifest_with_few_figures_has_no_others() -> None:
    card = {"evaluations": {"val": {"map50": 0.8, "by_class": {"mug": {"ap50": 0.9}}}}, "licence": "MIT"}
    document = describe_version(model(card=card, loaded_at=1.7e9), VersionFigures())
    TypeAdapter(ServedVersion).validate_python(document, strict=True)
    assert document["evaluations"] == card["evaluations"]
    assert document["lineage"] == {"licence": "MIT"}
    assert document["model"]["loaded_at"] == "2023-11-14T22:13:20+00:00"
    missing = {name for name in document["absent"] if name.startswith("evaluations.val.")}
    names = ("map50_95", "false_per_empty_picture", "intervals", "by_size", "run_ms")
    assert missing == {f"evaluations.val.{name}" for name in names}


def test_without_the_scope_there_are_neither_names_of_classes_nor_traffic() -> None:
    card = {"evaluations": {"val": {"map50": 0.8, "by_class": {"mug": {"ap50": 0.9}}}}}
    document = describe_version(model(card=card), None)
    TypeAdapter(ServedVersion).validate_python(document, strict=True)
    assert "mug" not in str(document)
    assert "traffic" not in document
    assert document["model"]["labels"] == {"count": 2}
    hidden = {name for name, why in document["absent"].items() if "scope `admin`" in why}
    assert hidden == {"model.labels.names", "evaluations.val.by_class", "traffic"}


def test_classes_beyond_the_first_hundred_are_counted_together() -> None:
    registry = CollectorRegistry()
    boxes = BoxMetrics(registry)
    boxes.count("v2", MODEL_CLASSES, rows(0, MAX_LABELS - 1, MAX_LABELS, MAX_LABELS + 1, 5000))
    found = version_figures(registry.collect(), ("v2",))["v2"]
    assert found.boxes == {MODEL_CLASSES[0]: 1, MODEL_CLASSES[MAX_LABELS - 1]: 1, OTHER: 3}


def test_a_version_that_gets_another_model_counts_by_the_labels_of_that_model() -> None:
    registry = CollectorRegistry()
    boxes = BoxMetrics(registry)
    for labels in (("mug", "key"), ("mug", "key"), ("bolt", "nut\n\ud800" + 200 * "x"), ("mug", "key")):
        boxes.count("v1", labels, rows(1))
    found = version_figures(registry.collect(), ("v1",))["v1"]
    assert found.boxes == {"key": 3, "nut??" + 95 * "x": 1}
    generate_latest(registry)  # which encodes labels


@pytest.mark.parametrize("share", [0.01, 0.5, 0.95, 1.0])
def test_a_quantile_lies_in_the_bucket_that_has_it(share: float) -> None:
    timing = Timing({0.01: 0.0, 0.1: 100.0, 1.0: 100.0, float("inf"): 100.0}, 5.0)
    found = timing.quantile(share)
    assert (found.low_ms, found.high_ms) == (10.0, 100.0)
    assert found.value_ms == pytest.approx(10 + 90 * share)


def test_nothing_has_no_quantile() -> None:
    with pytest.raises(ValueError, match="no durations"):
        Timing({0.1: 0.0, float("inf"): 0.0}, 0.0).quantile(0.5)


@pytest.mark.parametrize(
    ("accept", "page"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        ("text/html;q=0.9, application/json", False),
    ],
)
def test_browsers_get_a_page_and_programs_json(accept: str, page: bool) -> None:
    assert _wants_page(accept) is page
