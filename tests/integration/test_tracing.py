"""Spans that a service exports: their names, parents and times at a collector, and a collector that hangs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial

import psutil
import pytest

from tests.helpers.otlp_collector import Collector, ReceivedSpan, collector
from tests.helpers.service import PATIENT, Service
from tests.helpers.waiting import wait_for
from tests.helpers.wire_client import WireClient
from tests.unit.images import encode, scene

STAGES = ["receive", "queue", "decode", "queue", "infer", "postprocess", "send"]
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture(scope="module")
def collecting() -> Iterator[Collector]:
    with collector() as running:
        yield running


@pytest.fixture(scope="module")
def traced(collecting: Collector) -> Iterator[Service]:
    settings = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collecting.url,
        "OTEL_EXPORTER_OTLP_HEADERS": "api-key=dummy-collector-key",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_SERVICE_NAME": "gate-3",
        "SAMPLING": "0",
        **PATIENT,
    }
    with Service(settings) as service:
        yield service


def post(service: Service, body: bytes, traceparent: str = "") -> tuple[int, bytes]:
    request = urllib.request.Request(f"{service.http_url}/v1/predict", data=body)  # noqa: S310 - loopback
    request.add_header("Content-Type", "image/jpeg")
    if traceparent:
        request.add_header("traceparent", traceparent)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - loopback
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def has_all_stages(collecting: Collector, root: ReceivedSpan) -> bool:
    return len(collecting.below(root)) == len(STAGES)


def check_stages(collecting: Collector, root: ReceivedSpan) -> list[ReceivedSpan]:
    """Assert that the stages follow each other within the span of the request or frame, and add up to it."""
    stages = collecting.below(root)
    assert sorted(each.name for each in stages) == sorted(STAGES)
    assert root.begun_ns <= min(each.begun_ns for each in stages)
    assert max(each.ended_ns for each in stages) <= root.ended_ns + 1000
    assert all(each.trace_id == root.trace_id for each in stages)
    # There is no time between the stages, so their durations add up to the whole.
    assert sum(each.seconds for each in stages) == pytest.approx(root.seconds, abs=1e-5)
    return stages


def test_the_spans_of_a_request_belong_to_the_trace_of_its_client(
    traced: Service, collecting: Collector
) -> None:
    status, text = post(traced, encode(scene(640, 480)), f"00-{TRACE}-{SPAN}-01")
    assert status == 200
    wait_for(lambda: [each for each in collecting.roots("POST") if each.parent_id == SPAN])
    (root,) = (each for each in collecting.roots("POST") if each.parent_id == SPAN)
    assert (root.name, root.trace_id) == ("POST /v1/predict", TRACE)
    assert root.attributes["http.response.status_code"] == 200
    assert root.attributes["detect.request_id"] == json.loads(text)["request_id"]
    assert root.resource["service.name"] == "gate-3"
    wait_for(partial(has_all_stages, collecting, root))
    stages = check_stages(collecting, root)
    told = json.loads(text)["timings_ms"]
    for name, key in (("decode", "decode"), ("infer", "inference")):
        (stage,) = (each for each in stages if each.name == name)
        assert stage.seconds * 1e3 == pytest.approx(told[key], abs=0.02)


def test_a_refused_request_is_a_span_with_an_error(traced: Service, collecting: Collector) -> None:
    assert post(traced, b"no image")[0] == 415
    wait_for(lambda: [each for each in collecting.roots("POST") if each.is_error])
    (root,) = (each for each in collecting.roots("POST") if each.is_error)
    assert root.attributes["http.response.status_code"] == 415
    assert root.parent_id == ""


async def test_each_frame_is_a_span_in_the_trace_that_opened_its_stream(
    traced: Service, collecting: Collector
) -> None:
    headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    async with WireClient(f"{traced.ws_url}/v1/stream", headers=headers) as client:
        await client.hello()
        for seq in (1, 2):
            await client.send_frame(seq, encode(scene(320, 240)))
            await client.until_outcomes([seq])
    await asyncio.to_thread(wait_for, lambda: len(collecting.roots("frame")) == 2)
    for seq, root in enumerate(sorted(collecting.roots("frame"), key=lambda each: each.begun_ns), start=1):
        assert (root.trace_id, root.parent_id) == (TRACE, "00f067aa0ba902b7")
        assert root.attributes == {"detect.version": "v1", "detect.stream": 0, "detect.seq": seq}
        await asyncio.to_thread(wait_for, partial(has_all_stages, collecting, root))
        check_stages(collecting, root)


def test_only_the_worker_knows_the_key_of_the_collector(traced: Service, collecting: Collector) -> None:
    assert post(traced, encode(scene(64, 48)))[0] == 200
    wait_for(lambda: collecting.headers.get("api-key") == "dummy-collector-key")
    children = traced.supervisor.children(recursive=True)
    assert len(children) >= 5
    for process in children:
        with contextlib.suppress(psutil.NoSuchProcess):  # a decoder may be replaced
            assert "dummy-collector-key" not in str(process.environ())


def test_a_collector_that_hangs_delays_no_answer_and_no_end(traced: Service, collecting: Collector) -> None:
    collecting.hangs.set()
    before = collecting.requests
    image = encode(scene(64, 48))
    wait_for(lambda: post(traced, image)[0] == 200 and collecting.requests > before)
    for _ in range(20):
        assert post(traced, image)[0] == 200
    assert traced.stop() == 0
