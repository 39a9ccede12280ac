"""The stages of a trace add up, no caller waits for an export, and tracing is off unless it is configured."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from inference.core.detections import NO_BOXES
from streamer.accounting.tracing import MAX_WAITING, Trace, Traces, open_traces
from streamer.config.child_environment import without_secrets
from streamer.config.settings import load_settings
from streamer.http.trace_context import parse_traceparent
from streamer.scheduling.job import Prediction
from tests.helpers.otlp_collector import Collector, collector
from tests.helpers.waiting import wait_for

PREDICTION = Prediction(64, 48, NO_BOXES, 4.0, 2.0, 10.0, 1.0, batch_size=3)


@pytest.fixture(autouse=True)
def _close_waits_for_slow_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamer.accounting.tracing.FLUSH_S", 60.0)


def finished(name: str = "frame", parent: str = "") -> Trace:
    trace = Trace(name, 100.0, parse_traceparent(parent, "vendor=1"), {"detect.seq": 7})
    trace.add("receive", 100.0, 100.5)
    trace.add_prediction(PREDICTION, 100.5, 100.6)
    trace.add("send", 100.6, 100.7)
    return trace


def test_the_stages_of_an_image_add_up_and_follow_each_other() -> None:
    stages = finished().stages
    assert [name for name, *_ in stages] == [
        *("receive", "queue", "decode", "queue", "infer", "postprocess", "send"),
    ]
    for (_, _, ended, _), (_, begun, _, _) in itertools.pairwise(stages):
        assert begun == pytest.approx(ended)
    lengths_ms = [(ended - begun) * 1e3 for _, begun, ended, _ in stages]
    assert lengths_ms == pytest.approx([500, 83, 4, 2, 10, 1, 100])
    assert [more.get("place") for name, *_, more in stages if name == "queue"] == ["worker", "inference"]
    assert stages[4][3]["batch_size"] == 3


def test_no_stage_begins_before_its_image_or_ends_after_it() -> None:
    trace = Trace("frame", 0.0)
    trace.add_prediction(PREDICTION, 5.0, 5.005)  # the clocks of the processes may differ
    assert all(5.0 <= begun <= ended <= 5.005 for _, begun, ended, _ in trace.stages)


def test_who_adds_a_trace_never_waits_and_the_memory_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    going_on, written = threading.Event(), []

    def write(trace: Trace) -> None:
        going_on.wait()
        written.append(trace)

    traces = Traces(write, lambda: None)
    for _ in range(MAX_WAITING + 100):
        traces.put(finished(), 100.7)
    assert len(traces._waiting) <= MAX_WAITING
    going_on.set()
    traces.close()
    assert MAX_WAITING <= len(written) <= MAX_WAITING + 1
    with caplog.at_level(logging.WARNING):
        wait_for(lambda: not traces._thread.is_alive())
    assert any("traces were dropped" in message for message in caplog.messages)


def test_a_trace_that_cannot_be_written_costs_no_other(caplog: pytest.LogCaptureFixture) -> None:
    written = []

    def write(trace: Trace) -> None:
        if trace.name == "bad":
            raise ValueError("bad")
        written.append(trace.name)

    traces = Traces(write, lambda: None)
    for name in ("bad", "good"):
        traces.put(finished(name), 100.7)
    traces.close()
    assert written == ["good"]


@pytest.fixture
def collecting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    with collector() as running:
        yield running


def test_spans_have_names_parents_times_and_the_headers_that_were_set(collecting: Collector) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    traces = open_traces(
        load_settings(
            otel_exporter_otlp_endpoint=f"{collecting.url}/", otel_exporter_otlp_headers="api-key=dummy%20key"
        )
    )
    assert traces is not None
    traces.put(finished(parent=parent), 100.75)
    traces.put(finished(), 100.75, "InferenceLost")
    traces.close()
    mine, other = sorted(collecting.roots("frame"), key=lambda span: span.is_error)
    assert (mine.trace_id, mine.parent_id) == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    assert (other.trace_id != mine.trace_id, other.parent_id) == (True, "")
    assert mine.seconds == pytest.approx(0.75, abs=1e-6)
    children = collecting.below(mine)
    assert [child.name for child in children] == [
        *("receive", "queue", "decode", "queue", "infer", "postprocess", "send"),
    ]
    assert sum(child.seconds for child in children) == pytest.approx(0.7, abs=1e-6)
    assert mine.attributes == {"detect.seq": 7}
    assert mine.resource["service.name"] == "real-time-vision-api"
    assert collecting.headers["api-key"] == "dummy key"


def test_what_clients_send_costs_no_other_span_of_the_batch(collecting: Collector) -> None:
    traces = open_traces(load_settings(otel_exporter_otlp_endpoint=collecting.url))
    assert traces is not None
    bad = finished("POST /v" + "1" * 5000)
    bad.attributes["detect.version"] = b"v\xff".decode(errors="surrogateescape")
    traces.put(bad, 100.75)
    traces.put(finished("good"), 100.75)
    traces.close()
    roots = {span.name: span for span in collecting.spans if not span.parent_id}
    assert sorted(map(len, roots)) == [4, 256]
    assert roots["POST /v" + "1" * 249].attributes["detect.version"] == "v?"


def test_a_client_that_does_not_sample_its_trace_gets_no_spans(collecting: Collector) -> None:
    traces = open_traces(load_settings(otel_exporter_otlp_endpoint=collecting.url))
    assert traces is not None
    traces.put(finished("no", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"), 100.75)
    traces.put(finished("yes"), 100.75)
    traces.close()
    assert {span.name for span in collecting.spans if not span.parent_id} == {"yes"}


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"OTEL_SDK_DISABLED": "true"}, ""),
        ({"OTEL_TRACES_EXPORTER": "none"}, ""),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER is 'zipkin', and allowed is otlp"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "'grpc', and allowed is http/protobuf"),
    ],
)
def test_what_is_not_exported_is_said(
    variables: dict[str, str], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert open_traces(load_settings(otel_exporter_otlp_endpoint="http://127.0.0.1:1"), variables) is None
    assert said in caplog.text
    assert bool(said) == bool(caplog.messages)


def test_without_the_settings_nothing_is_exported_or_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamer.accounting.tracing._open", None)
    assert open_traces(load_settings(), {}) is None


def test_headers_for_the_collector_reach_no_environment_of_a_child() -> None:
    given = {
        "OTEL_EXPORTER_OTLP_HEADERS": "dummy",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "dummy",
        "OTEL_EXPORTER_OTLP_METRICS_HEADERS": "dummy",
        "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(Path("/etc/client.pem")),
        "OTEL_SERVICE_NAME": "gate",
    }
    assert set(without_secrets(given)) == {"OTEL_EXPORTER_OTLP_CLIENT_KEY", "OTEL_SERVICE_NAME"}
