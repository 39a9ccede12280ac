"""Samples of video over WebRTC: which frames are kept, under which name, and for which streams none are."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from streamer.datasets.sample import Sample, parse_sample
from streamer.datasets.source import FolderSource, verify
from tests.conftest import ROOT, shared
from tests.helpers.service import PATIENT, Service
from tests.helpers.waiting import wait_for
from tests.helpers.webrtc_client import Track, WebrtcClient

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


def bus(_: int = 0) -> np.ndarray[Any, Any]:
    """Return a photograph of 404x540 with a bus and people."""
    image = cv2.imread(str(shared("data/images/bus.jpg")))
    assert image is not None
    small: np.ndarray[Any, Any] = cv2.resize(image, (404, 540))
    return small


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("samples")


@pytest.fixture(scope="module")
def eager(yolox_nano: Path, folder: Path) -> Iterator[Service]:
    """Start a service that accepts every candidate, except from the stream with the name in SAMPLES_DENY."""
    own = {"MODEL_V1_PATH": str(yolox_nano), "SAMPLES_DIR": str(folder), "SAMPLES_DENY": "office"}
    with Service(EAGER | own) as running:
        wait_for(lambda: running.get_json("/health").get("sampling") == "on")
        yield running


def samples_of(folder: Path, stream: str) -> list[Sample]:
    """Return the samples that are stored under the name of a stream."""
    source = FolderSource(folder)
    keys = [key for key in source.keys("v1/samples/") if f"/stream={stream}/" in key]
    return [parse_sample(source.read(key), key) for key in keys]


def sidecars(folder: Path, stream: str) -> list[dict[str, Any]]:
    """Return the sidecars of the samples that are stored under the name of a stream."""
    return [json.loads(path.read_text()) for path in folder.glob(f"v1/samples/*/stream={stream}/*.json")]


@pytest.mark.parametrize("kind", ["webrtc", "whip"])
async def test_images_of_a_video_are_kept_as_jpegs_with_their_boxes(
    eager: Service, folder: Path, kind: str
) -> None:
    name = f"gate-{kind}"
    body = {"streams": [{"id": 0, "name": name}], "params": {"conf_threshold": 0.4}}
    url = f"{eager.http_url}/v1/{kind}" + (f"?name={name}&conf_threshold=0.4" if kind == "whip" else "")
    client = WebrtcClient(url, kind=kind, track=Track(bus, fps=5), body=body)
    async with client:
        await asyncio.to_thread(wait_for, lambda: bool(sidecars(folder, name)))
        await client.http.delete(client.location)
    described = sidecars(folder, name)[0]
    assert described["image"]["source"] == "encoded_q95"
    assert (described["image"]["width"], described["image"]["height"]) == (404, 540)
    assert (described["image"]["format"], described["transport"]) == ("jpg", kind)
    image = cv2.imread(str(folder / described["image"]["key"]))
    assert image is not None
    # The sample shows the frame of the video in its true colours. Two lossy codecs cause the difference.
    difference = np.abs(image.astype(int) - bus().astype(int)).mean(axis=(0, 1))
    assert difference.max() < 12, difference
    found = {detection["label"] for detection in described["detections"] if detection["score"] > 0.5}
    assert {"bus", "person"} <= found
    assert verify(FolderSource(folder)).problems == []


async def test_a_person_reports_a_frame_over_the_control_channel(eager: Service, folder: Path) -> None:
    body = {"streams": [{"id": 0, "name": "reported"}]}
    async with WebrtcClient(f"{eager.http_url}/v1/webrtc", track=Track(bus, fps=5), body=body) as client:
        await client.wait_for("result", 2)
        client.send({"type": "report", "stream": 0, "note": "a bus, not a tram"})
        (answer,) = await client.wait_for("reported")
        assert answer["taken"] is True
        client.send({"type": "report", "stream": 3})
        (error,) = await client.wait_for("error")
        assert "a video is stream 0" in error["message"]

        def noted() -> bool:
            return any(s["selection"]["note"] == "a bus, not a tram" for s in sidecars(folder, "reported"))

        await asyncio.to_thread(wait_for, noted)


@pytest.mark.parametrize(
    "wishes",
    [
        {"streams": [{"id": 0, "name": "refused", "collect": False}]},
        {"streams": [{"id": 0, "name": "refused"}], "collect": False},
        {"streams": [{"id": 0, "name": "Office"}]},
    ],
    ids=["stream", "connection", "denied"],
)
async def test_frames_of_those_who_do_not_want_it_are_not_kept(
    eager: Service, folder: Path, wishes: dict[str, Any]
) -> None:
    async with WebrtcClient(f"{eager.http_url}/v1/webrtc", track=Track(bus, fps=5), body=wishes) as client:
        await client.wait_for("result", 8)
        client.send({"type": "report", "stream": 0})
        (error,) = await client.wait_for("error")
        assert error["code"] == "not_collected"
    assert samples_of(folder, "refused") == samples_of(folder, "office") == []


async def test_one_session_has_one_stream(eager: Service) -> None:
    client = WebrtcClient(f"{eager.http_url}/v1/webrtc")
    body = {"type": "offer", "sdp": await client.offer(), "streams": [{"id": 0}, {"id": 1}]}
    async with client.http.post(client.endpoint, json=body) as response:
        assert response.status == 400
        assert "streams" in await response.text()
    long = {"Content-Type": "application/sdp"}
    async with client.http.post(
        f"{eager.http_url}/v1/whip?name={'x' * 101}", data=body["sdp"], headers=long
    ) as response:
        assert response.status == 400
        assert "at most 100" in await response.text()
    await client.close()


@pytest.mark.parametrize("transport", ["websocket", "webrtc"])
def test_push_names_its_stream(eager: Service, folder: Path, transport: str) -> None:
    name = f"Dock {transport}"
    command = [
        sys.executable,
        "-m",
        "streamer",
        "push",
        "sample",
        "--duration",
        "3",
        "--transport",
        transport,
    ]
    command += ["--transport", transport, "--url", f"{eager.ws_url}/v1/stream", "--stream", name]

    def pushed() -> bool:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        return _holds_soon(lambda: bool(samples_of(folder, f"dock-{transport}")))

    wait_for(pushed)  # on a busy machine no frame may be sampled in three seconds


def _holds_soon(condition: Callable[[], bool]) -> bool:
    with contextlib.suppress(AssertionError):
        wait_for(condition, timeout_s=20)
    return condition()
