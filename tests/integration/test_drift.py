"""Tests drift from end to end: images over HTTP and WebSocket, an episode, a report, a new reference.

Time is simulated: before each image, the test advances the clock of the service's processes by seconds.
"""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from streamer.datasets.source import FolderSource
from streamer.drift.engine import installed
from streamer.drift.features import grey, image_features, thumbnail
from tests.helpers.drift_rows import START
from tests.helpers.model_factory import blob_model
from tests.helpers.service import Service
from tests.helpers.simulated_clock import SimulatedClock
from tests.helpers.waiting import wait_for
from tests.helpers.wire_client import WireClient
from tests.unit.images import encode

#: Longer than a sampling interval with its jitter, so that every image becomes a row.
FRAME_S = 6.2
#: Longer interval for long tests, so that pauses of the machine, which pass in real time, cost no row.
PATIENT_FRAME_S = 7.0
#: Windows of 12 minutes, so that 20 of them fit into four hours.
WINDOWS = {"DRIFT_WINDOW_S": "720", "DRIFT_STEP_S": "240"}
QUIET = {
    "SAMPLES_CANDIDATE_S": "0",
    "UNCERTAINTY_THRESHOLD": "2",
    "SAMPLES_RANDOM_EVERY_S": "0",
    "STREAM_MIN_FPS": "0",
    "STREAM_MAX_AGE_MS": "60000",
    # The test may pause between two images until the sampling process has caught up.
    "STREAM_IDLE_TIMEOUT_S": "300",
}


class Camera:
    """Draws bright spots on a grey wall; light, focus and number of spots vary slowly at random."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._state = self._rng.standard_normal(3)
        #: Offsets of light, blur and content, in standard deviations.
        self.shift = np.zeros(3)

    def image(self) -> bytes:
        self._state = 0.9 * self._state + np.sqrt(1 - 0.81) * self._rng.standard_normal(3)
        light, blur, content = self._state + self.shift
        image = np.full((180, 240, 3), np.clip(90 + 10 * light, 0, 200), np.uint8)
        for _ in range(max(0, round(5 + 1.5 * content))):
            centre = self._rng.integers(20, 160, 2)
            cv2.rectangle(image, centre.tolist(), (centre + 18).tolist(), (255, 255, 255), -1)
        image = np.asarray(
            cv2.GaussianBlur(image, (0, 0), float(np.clip(1.5 + 0.3 * blur, 0.3, 9))), np.uint8
        )
        noise = self._rng.integers(-6, 7, image.shape)
        return encode(np.clip(image + noise, 0, 255).astype(np.uint8), ".jpg", cv2.IMWRITE_JPEG_QUALITY, 85)


def reference_rows(camera: Camera, count: int) -> list[dict[str, float]]:
    """Return reference rows measured from images alone, without features of detections."""
    rows: list[dict[str, float]] = []
    before = None
    for place in range(count):
        data = camera.image()
        image = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), np.uint8)
        small = thumbnail(image)
        found = image_features(image, small, before, 8 * len(data) / (240 * 180))
        before = grey(small)
        known = {name: value for name, value in found.items() if np.isfinite(value)}
        rows.append({"at": START - 86_400 + place * FRAME_S} | known)
    return rows


class Scene:
    """Two cameras that send to one service: one streams as `gate`, the other posts."""

    def __init__(self, service: Service, clock: SimulatedClock) -> None:
        self.service = service
        self.clock = clock
        self.cameras = Camera(1), Camera(2)
        self.sent = 0

    async def run(self, minutes: float, until: Callable[[], bool] = lambda: False) -> float:
        """Send images for ``minutes`` of simulated time, or until ``until()``; return the minutes passed."""
        begun = self.clock.now
        async with WireClient(f"{self.service.ws_url}/v1/stream") as client:
            await client.hello(streams=[{"id": 0, "name": "gate"}], params={"conf_threshold": 0.5})
            for seq in range(1, round(minutes * 60 / FRAME_S) + 1):
                self.clock.advance(FRAME_S)
                await client.send_frame(seq, self.cameras[0].image())
                await asyncio.to_thread(self.post, self.cameras[1].image())
                await client.receive("result")
                self.sent += 2
                if not seq % 10:
                    await self.settled()
                    if until():
                        break
        return (self.clock.now - begun) / 60

    async def settled(self, streams: int = 1) -> None:
        """Wait until every image has become a row, or is counted as lost.

        On a busy machine this takes time, because the sampling process has the lowest priority. The newest
        image of each of the ``streams`` becomes a row only when the next one arrives.
        """

        def seen() -> bool:
            # On a busy machine a decoder may exceed its time limit; its image then becomes no row.
            lost = self.service.metric("sampler_dropped_total")
            lost += self.service.metric("drift_check_failures_total", reason="damaged")
            return self.service.metric("data_drift_rows_total") + lost >= self.sent - streams

        await asyncio.to_thread(wait_for, seen, "every row measured", 240)

    def post(self, image: bytes) -> None:
        status, body = call(self.service, "/v1/predict?conf_threshold=0.5", image, "image/jpeg")
        assert status == 200, body

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.service.get_json("/drift/status")
        return found


def moved(status: dict[str, Any]) -> dict[str, Any]:
    """Return the ratio of each drifted column by group, for the message of a failing test."""
    return {
        name: {column["name"]: column["ratio"] for column in group["columns"] if column["drifted"]}
        for name, group in status["groups"].items()
    }


def call(service: Service, path: str, body: bytes | None, kind: str = "application/json") -> tuple[int, Any]:
    """POST ``body``, or GET if it is None; return the status and the answer, as parsed JSON or text."""
    request = urllib.request.Request(  # noqa: S310 - loopback
        service.http_url + path, data=body, headers={"Content-Type": kind}
    )
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:  # noqa: S310 - loopback
            status, text = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            status, text = error.code, error.read()
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text.decode()


def update(service: Service, query: str = "", **fields: Any) -> tuple[int, Any]:
    return call(service, f"/reference/update{query}", json.dumps(fields).encode())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return blob_model(tmp_path_factory.mktemp("model") / "blobs.onnx")


@pytest.fixture
def clock(tmp_path: Path) -> Iterator[SimulatedClock]:
    with SimulatedClock(tmp_path / "clock", START) as running:
        yield running


@pytest.mark.timeout(600)  # the sampling process has the lowest priority, and must process every image
async def test_a_shift_of_light_focus_and_content_is_one_episode_over_http_and_websocket(
    model: Path, clock: SimulatedClock, tmp_path: Path
) -> None:
    settings = QUIET | WINDOWS | clock.environment | {"MODEL_V1_PATH": str(model), "WORKERS": "2"}
    settings |= {
        "DRIFT_ENGINE": "builtin",
        "SAMPLES_DIR": str(tmp_path / "samples"),
        "SAMPLES_INTERVAL_S": "0",
    }
    with Service(settings) as service:
        await asyncio.to_thread(wait_for, lambda: service.get_json("/health").get("sampling") == "on")
        scene = Scene(service, clock)
        await asyncio.to_thread(wait_for, lambda: scene.status()["status"] == "no_reference")
        learnt = update(service, rows=reference_rows(Camera(3), 2500))
        assert learnt[0] == 200, learnt
        assert learnt[1]["groups"]["*"]["calibrated"], learnt
        await asyncio.to_thread(wait_for, lambda: scene.status()["status"] == "insufficient_data")
        await scene.run(36)
        found = scene.status()
        assert (found["status"], found["engine"]) == ("ok", "builtin"), moved(found)
        assert service.metric("data_drift_detected_total", group="gate") == 0
        # Add six standard deviations of light, blur and content for the streaming camera only: a reference
        # of four hours knows little about other times.
        scene.cameras[0].shift[:] = 6
        took = await scene.run(60, lambda: scene.status()["status"] == "drift")
        assert took <= 40
        found = scene.status()["groups"]
        assert (found["gate"]["status"], found["posted"]["status"]) == ("drift", "ok")
        assert "brightness" in found["gate"]["moved"]
        assert service.get_json("/health")["drift"] == "drift"
        assert update(service, hours=5)[0] == 409
        # However long the drift lasts, it is one episode. The service takes samples because of it.
        await scene.run(12)
        assert service.metric("data_drift_detected_total", group="gate") == 1
        assert service.metric("data_drift_active", group="gate") == 1
        assert service.metric("data_drift_detected_total", group="posted") == 0

        def samples() -> float:
            return service.metric("active_learning_samples_total", reason="drift")

        # The sampling process takes the best held candidate once per second of real time, not simulated time.
        await asyncio.to_thread(wait_for, lambda: samples() >= 1, "a sample is taken")
        assert samples() <= 20
        source = FolderSource(tmp_path / "samples")
        # A sample that counts as taken is in the spool; the sampling process then moves it to the folder.
        await asyncio.to_thread(wait_for, lambda: list(source.keys("v1/samples/")), "the sample is moved")
        sidecar = json.loads(source.read(next(iter(source.keys("v1/samples/")))))
        assert sidecar["selection"]["reasons"] == ["drift"]
        assert sidecar["features"]["n_boxes"] == sum(not d["below_threshold"] for d in sidecar["detections"])
        scene.cameras[0].shift[:] = 0
        await scene.run(60, lambda: scene.status()["status"] == "ok")
        assert service.metric("data_drift_active", group="gate") == 0
        assert service.metric("data_drift_detected_total", group="gate") == 1
        assert service.sampling_process.memory_info().rss < 150 << 20


@pytest.mark.timeout(400)  # Evidently runs at the lowest priority
async def test_the_report_is_evidentlys_and_the_status_outlives_the_sampling_process(
    model: Path, clock: SimulatedClock, tmp_path: Path
) -> None:
    if not installed():
        pytest.skip("needs Evidently, which is not installed")
    settings = QUIET | WINDOWS | clock.environment | {"MODEL_V1_PATH": str(model), "DRIFT_STEP_S": "86400"}
    settings |= {"SAMPLES_DIR": str(tmp_path / "samples"), "REFERENCE_DATA_PATH": str(tmp_path / "r.json")}
    (tmp_path / "r.json").write_text(json.dumps(reference_rows(Camera(3), 600)))
    with Service(settings) as service:
        await asyncio.to_thread(wait_for, lambda: service.get_json("/health").get("sampling") == "on")
        scene = Scene(service, clock)
        await asyncio.to_thread(wait_for, lambda: scene.status()["status"] == "insufficient_data")
        assert call(service, "/drift/report", None)[0] == 409
        await scene.run(11.5)
        assert call(service, "/drift/report?group=nobody", None)[0] == 404
        status, page = await asyncio.to_thread(call, service, "/drift/report?group=gate", None)
        assert status == 200
        assert "brightness" in page
        with urllib.request.urlopen(f"{service.http_url}/drift/report?group=gate") as again:  # noqa: S310, ASYNC210
            # Evidently gives each report random ids, so an equal one was not made again.
            assert again.read().decode() == page
            assert "sandbox" in again.headers["Content-Security-Policy"]
        assert len(page) > 1_000_000
        # When the sampling process dies, the status remains available, and the next process has the rows.
        service.sampling_process.kill()
        assert service.get("/drift/status")[0] == 200
        wait_for(lambda: service.metric("object_detection_process_restarts_total", role="observer") >= 1)
        wait_for(lambda: service.get_json("/health").get("sampling") == "on")
        tried = update(service, dry_run=True, force=True)[1]["groups"]["gate"]
        assert tried["rows"] >= 105
        assert tried["ratio_before"] is not None


def test_who_may_ask(model: Path, tmp_path: Path) -> None:
    keys = {"MODEL_V1_PATH": str(model), "API_KEYS": "dummy"}
    with Service(keys) as service:
        assert service.get("/drift/status")[0] == 200
        for path, body in (("/drift/report", None), ("/reference/update", b"{}")):
            assert call(service, path, body)[0] == 401
    with Service({"MODEL_V1_PATH": str(model), "SAMPLING": "0"}) as service:
        assert service.get_json("/drift/status") == {"status": "disabled", "observer": "off"}
        assert service.get_json("/health")["drift"] == "disabled"
        for path, body in (("/drift/report", None), ("/reference/update", b"{}")):
            assert call(service, path, body)[0] == 409
        assert call(service, "/reference/update", b"{}", "text/plain")[0] == 415
        assert call(service, "/reference/update?force=maybe", b"{}")[0] == 400
        assert call(service, "/reference/update", b" " * (17 << 20))[0] == 413


@pytest.mark.timeout(3000)
async def test_two_days_of_five_cameras_and_then_a_shift(
    model: Path, clock: SimulatedClock, tmp_path: Path, full: bool
) -> None:
    """Learn from one day, run a day without drift, then shift by two deviations, with the default windows."""
    if not full:
        pytest.skip("128,000 images, some eight minutes; `--full` runs it")
    settings = QUIET | clock.environment | {"MODEL_V1_PATH": str(model), "DRIFT_ENGINE": "builtin"}
    settings |= {"SAMPLES_DIR": str(tmp_path / "samples"), "REFERENCE_DATA_PATH": str(tmp_path / "r.json")}
    cameras = [Camera(seed) for seed in range(5)]
    # Four cameras stream over one socket; the fifth posts.
    groups = [*(f"camera-{place}" for place in range(4)), "posted"]
    with Service(settings) as service:
        await asyncio.to_thread(wait_for, lambda: service.get_json("/health").get("sampling") == "on")
        scene = Scene(service, clock)
        async with WireClient(f"{service.ws_url}/v1/stream") as client:
            streams = [{"id": place, "name": groups[place]} for place in range(4)]
            await client.hello(streams=streams, params={"conf_threshold": 0.5})
            seq = 0

            async def live(minutes: float) -> None:
                nonlocal seq
                for _ in range(round(minutes * 60 / PATIENT_FRAME_S)):
                    seq += 1
                    clock.advance(PATIENT_FRAME_S)
                    for place in range(4):
                        await client.send_frame(seq, cameras[place].image(), stream=place)
                    await asyncio.to_thread(scene.post, cameras[4].image())
                    for _answer in range(4):
                        await client.receive("result")
                    client.outcomes.clear()
                    scene.sent += 5
                    if not seq % 20:
                        await scene.settled(4)

            def episodes() -> list[float]:
                return [service.metric("data_drift_detected_total", group=name) for name in groups]

            await live(24 * 60)
            status, learnt = await asyncio.to_thread(update, service, hours=24)
            assert status == 200, learnt
            assert all(learnt["groups"][name]["calibrated"] for name in groups), learnt
            await live(24 * 60)
            assert episodes() == [0] * 5, moved(scene.status())
            assert scene.status()["status"] == "ok"
            for camera in cameras:
                camera.shift[:] = 2
            await live(40)
            await scene.settled(4)
            assert episodes() == [1] * 5, moved(scene.status())
            await live(60)
            assert episodes() == [1] * 5, "one episode, however long it lasts"
            assert service.sampling_process.memory_info().rss < 150 << 20
