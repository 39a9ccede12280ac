"""Samples from a real service, over HTTP and WebSocket: which frames it keeps, without harm to inference."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from streamer.datasets.sample import Sample, parse_sample
from streamer.datasets.source import FolderSource, verify
from tests.conftest import shared
from tests.helpers.service import PATIENT, Service
from tests.helpers.waiting import wait_for
from tests.helpers.wire_client import WireClient
from tests.unit.images import with_exif

#: Settings with which the service accepts every candidate at once, within ample budgets.
EAGER = {
    "UNCERTAINTY_THRESHOLD": "0",
    "SAMPLES_INTERVAL_S": "0",
    "SAMPLES_SPACING_S": "0",
    "SAMPLES_STREAM_PER_HOUR": "100000",
    "SAMPLES_PER_HOUR": "100000",
    "SAMPLES_RANDOM_EVERY_S": "0",
    **PATIENT,
}


@pytest.fixture(scope="module")
def bus() -> bytes:
    """Return a JPEG of 810x1080 with a bus and people."""
    return shared("data/images/bus.jpg").read_bytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "samples"


@pytest.fixture
def eager(yolox_nano: Path, folder: Path) -> Iterator[Service]:
    """Start a service that accepts every candidate."""
    with Service(EAGER | {"MODEL_V1_PATH": str(yolox_nano), "SAMPLES_DIR": str(folder)}) as running:
        wait_for(lambda: running.get_json("/health").get("sampling") == "on")
        yield running


def samples_in(folder: Path) -> list[Sample]:
    if not (folder / "v1").is_dir():
        return []
    source = FolderSource(folder)
    return [parse_sample(source.read(key), key) for key in source.keys("v1/samples/")]


def variant(image: bytes, seed: int) -> bytes:
    """Return the image with a pattern over its upper half, which changes its bytes and its fingerprint."""
    pixels = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    cells = np.random.default_rng(seed).integers(0, 255, (4, 4, 3)).astype(np.uint8)
    pixels[:540] = cv2.addWeighted(pixels[:540], 0.1, cv2.resize(cells, (810, 540)), 0.9, 0)
    return bytes(cv2.imencode(".jpg", pixels)[1])


def post(service: Service, body: bytes, query: str = "") -> dict[str, Any]:
    request = urllib.request.Request(  # noqa: S310 - loopback
        f"{service.http_url}/v1/predict{query}", data=body, headers={"Content-Type": "image/jpeg"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310 - loopback
        result: dict[str, Any] = json.loads(answer.read())
    return result


async def test_a_frame_is_kept_as_it_came_with_the_boxes_that_were_shown(
    eager: Service, bus: bytes, folder: Path
) -> None:
    async with WireClient(f"{eager.ws_url}/v1/stream") as client:
        await client.hello(streams=[{"id": 0, "name": "Gate 3"}], params={"conf_threshold": 0.5})
        await client.send_frame(1, bus)
        shown = (await client.receive("result"))["boxes"]
    await asyncio.to_thread(wait_for, lambda: len(samples_in(folder)) == 1)
    (sample,) = samples_in(folder)
    assert (sample.stream, sample.sha256) == ("gate-3", hashlib.sha256(bus).hexdigest())
    assert (folder / sample.key).read_bytes() == bus
    kept = [[*d.box, d.score] for d in sample.detections if not d.below_threshold]
    np.testing.assert_allclose(kept, [box[:5] for box in shown], atol=0.006)
    assert all(box[4] >= 0.5 for box in shown)
    assert all(0.25 <= d.score < 0.5 for d in sample.detections if d.below_threshold)
    assert verify(FolderSource(folder)).problems == []
    await asyncio.to_thread(
        wait_for, lambda: eager.metric("active_learning_samples_total", reason="uncertainty") == 1
    )
    # The service counts an upload only when the files are complete.
    await asyncio.to_thread(
        wait_for, lambda: eager.metric("active_learning_uploads_total", result="stored") == 1
    )


async def test_turned_frames_have_upright_boxes_and_say_how_to_turn_them(
    eager: Service, bus: bytes, folder: Path
) -> None:
    image = cv2.imdecode(np.frombuffer(bus, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    lying = bytes(cv2.imencode(".png", cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE))[1])
    async with WireClient(f"{eager.ws_url}/v1/stream") as client:
        await client.hello()
        await client.send_frame(1, lying, codec="png", rotation=1)
        await client.receive("result")
    await asyncio.to_thread(wait_for, lambda: len(samples_in(folder)) == 1)
    (sample,) = samples_in(folder)
    assert (sample.width, sample.height, sample.rotation, sample.kind) == (810, 1080, 1, "png")
    assert verify(FolderSource(folder)).problems == []


def test_a_candidate_gets_the_same_answer_as_any_other_image(
    eager: Service, bus: bytes, folder: Path
) -> None:
    answers = [post(eager, bus, f"?conf_threshold=0.4&collect={collect}") for collect in (0, 1, 0)]
    boxes = [[(d["box"], d["score"]) for d in answer["detections"]] for answer in answers]
    assert boxes[0] == boxes[1] == boxes[2]
    assert boxes[0]
    wait_for(lambda: len(samples_in(folder)) == 1)
    assert samples_in(folder)[0].stream == "posted"


async def test_who_does_not_want_it_is_not_kept(eager: Service, bus: bytes, folder: Path) -> None:
    for hello in ({"collect": False}, {"streams": [{"id": 0, "collect": False}]}):
        async with WireClient(f"{eager.ws_url}/v1/stream") as client:
            await client.hello(**hello)
            await client.send_frame(1, bus)
            await client.receive("result")
            await client.send({"type": "report"})
            assert (await client.receive("error"))["code"] == "not_collected"
    post(eager, bus, "?collect=0")
    await asyncio.sleep(2.5)
    assert samples_in(folder) == []


async def test_a_person_can_report_the_last_frame(yolox_nano: Path, bus: bytes, folder: Path) -> None:
    # A threshold that no frame reaches, so that the service accepts only the report. With the threshold of
    # EAGER, it would depend on the machine whether the service accepts the frame itself.
    settings = EAGER | {"MODEL_V1_PATH": str(yolox_nano), "SAMPLES_DIR": str(folder)}
    settings |= {"UNCERTAINTY_THRESHOLD": "2", "SAMPLES_STREAM_PER_HOUR": "0"}
    with Service(settings | {"SAMPLES_DENY": "private", "SAMPLES_STRIP_METADATA": "1"}) as service:
        await asyncio.to_thread(wait_for, lambda: service.get_json("/health").get("sampling") == "on")
        async with WireClient(f"{service.ws_url}/v1/stream") as client:
            await client.hello(streams=[{"id": 0}, {"id": 1, "name": "Private"}])
            await client.send({"type": "report"})
            assert (await client.receive("error"))["code"] == "nothing_to_report"
            turned = with_exif(bus, 6)
            await client.send_frame(5, turned)
            await client.receive("result")
            await client.send({"type": "report", "note": "no bus"})
            reported = await client.receive("reported")
            assert (reported["stream"], reported["seq"], reported["taken"]) == (0, 5, True)
            assert service.metric("active_learning_samples_total", reason="user") == 1
            await client.send({"type": "report"})
            again = await client.receive("reported")
            assert (again["taken"], again["reason"], again["sample"]) == (
                False,
                "duplicate",
                reported["sample"],
            )
            await client.send({"type": "report", "stream": 1})
            assert (await client.receive("error"))["code"] == "not_collected"
            await asyncio.to_thread(wait_for, lambda: len(samples_in(folder)) == 1)
            (sample,) = samples_in(folder)
            for seq in range(6, 13):
                await client.send_frame(seq, turned)
                await client.receive("result")
                await client.send({"type": "report", "note": "no bus"})
                assert (await client.receive("reported"))["taken"]
        # The promise outlives the process.
        service.sampling_process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(wait_for, lambda: len(samples_in(folder)) == 8)
        assert (sample.reasons[0], sample.exif_orientation) == ("user", 6)
        assert (sample.width, sample.height) == (1080, 810)
        assert service.metric("active_learning_samples_total", reason="user") == 8
        sidecars = list((folder / "v1" / "samples").rglob("*.json"))
        assert {json.loads(path.read_text())["selection"]["note"] for path in sidecars} == {"no bus"}
        assert verify(FolderSource(folder)).problems == []


def test_what_is_held_for_its_interval_is_kept_at_the_end(yolox_nano: Path, bus: bytes, folder: Path) -> None:
    settings = EAGER | {"MODEL_V1_PATH": str(yolox_nano), "SAMPLES_DIR": str(folder)}
    service = Service(settings | {"SAMPLES_INTERVAL_S": "3600"})
    with service:
        wait_for(lambda: service.get_json("/health").get("sampling") == "on")
        post(service, bus)
        # The sampling process starts its decoder for the first image, at the lowest priority.
        wait_for(lambda: len(service.sampling_process.children(recursive=True)) >= 2, "a decoder")
        time.sleep(2.0)
        assert samples_in(folder) == []
        assert service.stop() == 0
    assert len(samples_in(folder)) == 1
    assert list((folder / ".spool" / "ready").iterdir()) == []


def test_no_detection_feels_the_sampling_process_die_and_no_accepted_sample_is_lost(
    eager: Service, bus: bytes, folder: Path
) -> None:
    def decided() -> float:
        return eager.metric("active_learning_samples_total") + eager.metric("sampler_dropped_total")

    images = [variant(bus, seed) for seed in range(6)]
    for index, image in enumerate(images):
        killed = index in (2, 4)
        if killed:
            process = eager.sampling_process
            process.send_signal(signal.SIGKILL)
            # Until the process is reaped, one of its threads may still run and keep its sockets open.
            wait_for(functools.partial(lambda killed: not killed.is_running(), process))
        assert post(eager, image)["detections"]
        # A candidate that arrives while no sampling process runs waits for the next process. Wait for each
        # decision before the next image: a process that finds two candidates waiting keeps only the better.
        wait_for(functools.partial(lambda sent: decided() == sent, index + 1))
        time.sleep(1.25)  # one candidate a second
    wait_for(lambda: eager.metric("active_learning_spool_items") == 0)
    assert eager.metric("object_detection_process_restarts_total", role="observer") >= 2
    accepted = eager.metric("active_learning_samples_total")
    assert eager.metric("active_learning_dropped_total") == 0
    # A kill between accepting a sample and counting it leaves an uncounted sample. The reverse, a counted
    # sample that is absent, must never happen.
    assert len(samples_in(folder)) >= accepted
    assert verify(FolderSource(folder)).problems == []
    assert eager.metric("object_detection_process_restarts_total", role="worker") == 0


def test_a_stopped_sampling_process_is_not_felt(eager: Service, bus: bytes) -> None:
    process = eager.sampling_process
    process.suspend()
    try:
        for _ in range(5):
            assert post(eager, bus)["detections"]
    finally:
        process.resume()


def test_two_versions_are_compared_while_nothing_else_runs(
    yolox_nano: Path, bus: bytes, folder: Path
) -> None:
    # Both versions use the same model, so their detections must be equal.
    settings = EAGER | {"MODEL_V1_PATH": str(yolox_nano), "MODEL_V2_PATH": str(yolox_nano)}
    with Service(settings | {"SAMPLES_DIR": str(folder), "SAMPLES_COMPARE": "1"}) as service:
        wait_for(lambda: service.get_json("/health").get("sampling") == "on")
        assert post(service, bus)["detections"]
        wait_for(lambda: len(samples_in(folder)) == 1)
        assert service.metric("object_detection_frames_received_total") == 1  # only the client's
    (path,) = (folder / "v1" / "samples").rglob("*.json")
    sidecar = json.loads(path.read_text())
    assert sidecar["rival"]["version"] == "v2"
    assert sidecar["rival"]["detections"] == sidecar["detections"]
    assert sidecar["selection"]["components"]["disagreement"] == pytest.approx(0, abs=1e-3)


def test_sampling_can_be_off(yolox_nano: Path, bus: bytes, folder: Path) -> None:
    settings = EAGER | {"MODEL_V1_PATH": str(yolox_nano), "SAMPLES_DIR": str(folder), "SAMPLING": "0"}
    with Service(settings) as service:
        assert service.children("streamer.sampling.process") == []
        assert service.get_json("/health").get("sampling") == "off"
        assert post(service, bus)["detections"]
    assert not folder.exists()


def test_a_folder_that_cannot_be_used_costs_samples_alone_until_it_can(
    yolox_nano: Path, bus: bytes, folder: Path
) -> None:
    folder.write_text("in the way")
    settings = EAGER | {"MODEL_V1_PATH": str(yolox_nano), "SAMPLES_DIR": str(folder)}
    with Service(settings) as service:
        wait_for(lambda: service.get_json("/health").get("sampling") == "no_spool")
        assert service.get_json("/health")["status"] == "ok"
        assert post(service, bus)["detections"]
        wait_for(lambda: "SAMPLES_DIR" in service.log)
        folder.unlink()
        wait_for(lambda: service.get_json("/health").get("sampling") == "on")
        wait_for(lambda: post(service, bus)["detections"] and samples_in(folder))
