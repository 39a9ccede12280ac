"""The demand of streams is what their clients would send without grants, also while they send less."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from inference.core.detections import NO_BOXES
from inference.core.fair_queueing import Flow
from inference.ipc.served_model import ServedModel
from inference.ipc.wire import Result, Status
from inference.models.model import Family, ModelInfo, Placement
from streamer.scheduling.clients import NOBODY, Client
from streamer.scheduling.job import Job
from streamer.scheduling.stream_rates import FAIR_RATE_S, Demand, StreamRates

INFO = ModelInfo("m", "0", Family.YOLO, ("a",), 320, 320, Placement.CENTRED, 114)
#: 50 frames per second.
MODEL = ServedModel(0, "v1", INFO, {1: 20.0}, in_flight=2, parallel=1, inference_threads=1)


@dataclass
class Camera:
    """A stream whose client sends ``fps``, or less if it was granted less."""

    key: int
    fps: float
    declared_fps: float | None = None
    client: Client = NOBODY
    granted_fps: float | None = None
    pending: bool = False
    _owed: float = field(default=0.0)

    def has_ready_frame(self, _: float) -> bool:
        return False

    def take(self, _: float) -> Job | None:
        return None

    def grant(self, max_fps: float | None) -> None:
        self.granted_fps = max_fps

    def frames(self, seconds: float) -> int:
        """Return the number of frames that the client sends in the next ``seconds``."""
        self._owed += seconds * min(self.fps, self.granted_fps or self.fps)
        count = int(self._owed)
        self._owed -= count
        return count


class Streams:
    """Lets cameras send for some time."""

    def __init__(self, *cameras: Camera, model: ServedModel = MODEL) -> None:
        self.model = model
        self.rates = StreamRates()
        self.cameras = cameras
        self.now = 0.0
        for camera in cameras:
            self.rates.open(camera, Demand(Flow("live", 0, 1.0)))

    def run(self, seconds: float, *, waiting: bool = False) -> None:
        for _ in range(round(seconds / FAIR_RATE_S)):
            for camera in self.cameras:
                for _ in range(camera.frames(FAIR_RATE_S)):
                    self.rates.count_arrival(camera.key)
                queue_ms = 50.0 if waiting else 0.0
                result = Result(1, Status.OK, NO_BOXES, queue_ms, 20.0, 0.1, 1)
                self.rates.observe(self.model, camera.key, result)
            self.now += FAIR_RATE_S
            self.rates.share(self.model, self.now)

    @property
    def asked_fps(self) -> float:
        return self.rates.asked_fps()[0]

    @property
    def granted_fps(self) -> float:
        return self.rates.asked_fps()[1]


@pytest.mark.parametrize("fps", [0.5, 1.0, 7.0, 30.0])
def test_the_demand_of_an_unlimited_stream_is_what_it_sends(fps: float) -> None:
    streams = Streams(Camera(1, fps))
    streams.run(60)
    seen = []
    for _ in range(20):
        streams.run(1)
        seen.append(streams.asked_fps)
    assert sum(seen) / len(seen) == pytest.approx(fps, rel=0.1)
    assert streams.granted_fps == streams.asked_fps


def test_a_client_that_obeys_its_grant_keeps_its_demand() -> None:
    cameras = [Camera(number, 10.0, client=Client(str(number), number)) for number in range(1, 13)]
    streams = Streams(*cameras)
    asked, granted = [], []
    for _ in range(120):
        streams.run(0.5, waiting=True)
        asked.append(streams.asked_fps)
        granted.append(streams.granted_fps)
    assert min(granted[20:]) <= 51, "the grants share 50 frames per second"
    assert min(asked[20:]) == pytest.approx(120, rel=0.25)
    assert max(asked) == pytest.approx(120, rel=0.25)


def test_grants_stay_while_clients_obey_them() -> None:
    """Frames do not wait while clients obey, but they would again if the grants ended."""
    cameras = [Camera(number, 10.0, client=Client(str(number), number)) for number in range(1, 13)]
    streams = Streams(*cameras)
    streams.run(10, waiting=True)
    granted = [camera.granted_fps for camera in cameras]
    seen = []
    for _ in range(240):
        streams.run(0.5)
        assert [camera.granted_fps for camera in cameras] == granted
        seen.append(streams.asked_fps)
    assert min(seen) > 90


def test_grants_end_when_the_streams_fit() -> None:
    cameras = [Camera(number, 10.0, client=Client(str(number), number)) for number in range(1, 13)]
    streams = Streams(*cameras)
    streams.run(10, waiting=True)
    for camera in cameras[4:]:
        streams.rates.close(camera.key)
    streams.cameras = tuple(cameras[:4])
    streams.run(10)
    assert [camera.granted_fps for camera in cameras[:4]] == [None] * 4


def test_a_camera_that_becomes_slow_leaves_its_grant_to_the_others() -> None:
    cameras = [Camera(number, 10.0, client=Client(str(number), number)) for number in range(1, 7)]
    streams = Streams(*cameras)
    streams.run(10, waiting=True)
    for camera in cameras[3:]:
        camera.fps = 1.0
    streams.run(60)
    assert [camera.granted_fps for camera in cameras] == [None] * 6


def test_decoding_on_the_same_cores_lowers_what_is_granted() -> None:
    cameras = [Camera(number, 10.0, client=Client(str(number), number)) for number in range(1, 13)]
    for provider, total_fps in (("cpu", 25.0), ("cuda", 50.0)):
        model = replace(MODEL, info=replace(INFO, provider=provider))
        assert StreamRates().capacity_fps(model) == pytest.approx(50.0)
        streams = Streams(*cameras, model=model)
        for _ in range(100):
            streams.rates.decoded(20.0)  # as long as a run
        streams.run(10, waiting=True)
        assert streams.granted_fps == pytest.approx(total_fps, rel=0.05)


def test_a_declared_rate_counts_until_the_client_is_known_to_send_less() -> None:
    crowd = [Camera(number, 10.0, client=Client(str(number), number)) for number in range(1, 13)]
    streams = Streams(*crowd)
    streams.run(20, waiting=True)
    before = streams.asked_fps
    late = Camera(99, 10.0, declared_fps=10.0, client=Client("late", 99), granted_fps=2.0)
    streams.cameras = (*crowd, late)
    streams.rates.open(late, Demand(Flow("live", 99, 1.0)))
    streams.run(5, waiting=True)
    assert streams.asked_fps - before == pytest.approx(10, abs=2)
    modest = Streams(Camera(1, 2.0, declared_fps=30.0))
    modest.run(30)
    assert modest.asked_fps == pytest.approx(2, rel=0.15)


def test_a_camera_that_sends_less_of_itself_asks_for_less() -> None:
    cameras = [Camera(number, 10.0, client=Client(str(number), number)) for number in range(1, 13)]
    streams = Streams(*cameras)
    streams.run(20, waiting=True)
    for camera in cameras:
        camera.fps = 1.0
    streams.run(40)
    assert streams.asked_fps == pytest.approx(12, rel=0.2)


def test_frames_that_a_network_has_held_up_are_no_demand() -> None:
    """Every ten seconds the frames of five seconds arrive at once, while the device is overloaded."""
    cameras = [Camera(number, 10.0, client=Client(str(number), number)) for number in range(1, 13)]
    streams = Streams(*cameras)
    streams.run(20, waiting=True)
    for _ in range(30):
        for camera in cameras:
            camera.fps = 0.0
        streams.run(5, waiting=True)
        for camera in cameras:
            for _ in range(50):
                streams.rates.count_arrival(camera.key)
            camera.fps, camera.granted_fps = 10.0, None  # it does not obey
        streams.run(5, waiting=True)
    assert streams.asked_fps == pytest.approx(120, rel=0.3)


def test_silent_and_closed_streams_ask_for_nothing() -> None:
    silent, gone = Camera(1, 10.0), Camera(2, 10.0)
    streams = Streams(silent, gone)
    streams.run(10)
    assert streams.asked_fps == pytest.approx(20, rel=0.1)
    mean_fps = streams.rates.asked_fps()[2]
    assert mean_fps == pytest.approx(10, rel=0.1)
    streams.rates.close(gone.key)
    assert streams.asked_fps == pytest.approx(10, rel=0.1)
    silent.fps = 0.0
    streams.cameras = (silent,)
    streams.run(10)
    asked_fps, granted_fps, last_mean_fps = streams.rates.asked_fps()
    assert (asked_fps, granted_fps) == (0, 0)
    assert last_mean_fps == pytest.approx(mean_fps, rel=0.1), "it is remembered"


def test_a_restart_of_the_inference_process_does_not_hide_the_demand() -> None:
    streams = Streams(Camera(1, 10.0))
    streams.run(10)
    for _ in range(40):
        streams.rates.count_arrival(1)
        streams.rates.skip()
    assert streams.asked_fps == pytest.approx(10, rel=0.1)
    streams.run(0.5)
    assert streams.asked_fps == pytest.approx(10, rel=0.1)
