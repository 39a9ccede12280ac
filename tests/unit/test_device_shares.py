"""Versions and workers divide one device: they grant what it can run, and the same to every stream."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.core.fair_queueing import Flow
from inference.ipc.served_model import ServedModel
from inference.ipc.shared_status import SharedStatus
from inference.models.model import Family, ModelInfo, Placement
from streamer.scheduling.clients import NOBODY
from streamer.scheduling.device_shares import DeviceShares
from streamer.scheduling.stream_rates import FAIR_RATE_S, Demand, StreamRates
from tests.helpers.application import make_routes
from tests.unit.test_stream_demand import Camera

INFO = ModelInfo("m", "0", Family.YOLO, ("a",), 320, 320, Placement.CENTRED, 114)
#: 100 frames per second, and 50.
FAST = ServedModel(0, "v1", INFO, {1: 10.0}, in_flight=2, parallel=1, inference_threads=1)
SLOW = ServedModel(1, "v2", INFO, {1: 20.0}, in_flight=2, parallel=1, inference_threads=1)


class Party:
    """The streams of one version in one worker."""

    def __init__(self, model: ServedModel, shares: DeviceShares, cameras: int, fps: float) -> None:
        self.model = model
        self.rates = StreamRates()
        self.rates.divide_device(model.version, shares)
        self.cameras = [Camera(key, fps) for key in range(cameras)]
        for camera in self.cameras:
            self.rates.open(camera, Demand(Flow("live", 0, 1.0)))

    def send(self, now: float) -> None:
        for camera in self.cameras:
            for _ in range(camera.frames(FAIR_RATE_S)):
                self.rates.count_arrival(camera.key)
        self.rates.share(self.model, now)

    @property
    def device_share(self) -> float:
        """Part of the device that these streams use."""
        sent_fps = sum(min(camera.fps, camera.granted_fps or math.inf) for camera in self.cameras)
        return sent_fps / self.model.capacity_fps


def run(parties: list[Party], seconds: float = 20.0) -> None:
    for step in range(round(seconds / FAIR_RATE_S)):
        for party in parties:
            party.send(step * FAIR_RATE_S)


def granted(party: Party) -> list[float]:
    return [camera.granted_fps or math.inf for camera in party.cameras]


def workers(number: int) -> list[DeviceShares]:
    status = SharedStatus()
    return [DeviceShares(status, each, number) for each in range(number)]


def test_workers_grant_together_what_the_device_can_run() -> None:
    parties = [Party(FAST, shares, 10, 30.0) for shares in workers(4)]
    run(parties)
    assert sum(party.device_share for party in parties) == pytest.approx(1.0, abs=0.05)
    assert [fps for party in parties for fps in granted(party)] == pytest.approx([2.5] * 40, rel=0.1)


def test_each_worker_alone_would_grant_the_whole_device() -> None:
    parties = [Party(FAST, DeviceShares(), 10, 30.0) for _ in range(4)]
    run(parties)
    assert sum(party.device_share for party in parties) == pytest.approx(4.0, abs=0.05)


def test_a_worker_with_more_streams_gets_a_larger_part() -> None:
    few, many = (Party(FAST, shares, count, 30.0) for shares, count in zip(workers(2), (5, 20), strict=True))
    run([few, many])
    assert granted(few) == pytest.approx(granted(many)[:5], rel=0.1)
    assert few.device_share + many.device_share == pytest.approx(1.0, abs=0.05)


def test_what_one_worker_does_not_want_is_left_to_the_others() -> None:
    modest, greedy = (
        Party(FAST, shares, 10, fps) for shares, fps in zip(workers(2), (2.0, 30.0), strict=True)
    )
    run([modest, greedy])
    assert granted(modest) == [math.inf] * 10
    assert greedy.device_share == pytest.approx(0.8, abs=0.05)


def test_a_frame_that_waited_claims_nothing_while_the_device_has_time_left() -> None:
    many, one = (
        Party(FAST, shares, *each) for shares, each in zip(workers(2), ((19, 1.0), (1, 30.0)), strict=True)
    )
    for step in range(40):
        many.rates.demands[0].backlogged = True
        for party in (many, one):
            party.send(step * FAIR_RATE_S)
    assert granted(one) == [math.inf]
    assert granted(many) == [math.inf] * 19


def test_versions_of_one_worker_divide_the_device_by_its_time() -> None:
    shares = DeviceShares()
    parties = [Party(FAST, shares, 10, 30.0), Party(SLOW, shares, 10, 30.0)]
    run(parties)
    assert parties[0].device_share == pytest.approx(0.5, abs=0.05)
    assert parties[1].device_share == pytest.approx(0.5, abs=0.05)


def test_streams_that_end_give_their_part_back() -> None:
    parties = [Party(FAST, shares, 10, 30.0) for shares in workers(2)]
    run(parties)
    for camera in parties[0].cameras:
        parties[0].rates.close(camera.key)
    for step in range(80):
        parties[1].send(20.0 + step * FAIR_RATE_S)
    assert parties[1].device_share == pytest.approx(1.0, abs=0.05)


def test_a_worker_that_starts_again_claims_nothing() -> None:
    status = SharedStatus()
    first, second = DeviceShares(status, 0, 2), DeviceShares(status, 1, 2)
    first.claim("v1", 1.0, 10)
    second.claim("v1", 1.0, 10)
    assert second.share("v1") == pytest.approx(0.5)
    DeviceShares(status, 0, 2)
    assert second.share("v1") == 1.0


def test_a_newcomer_is_promised_its_part_of_what_all_workers_share() -> None:
    one, other = workers(2)
    party = Party(FAST, one, 9, 30.0)
    run([party, Party(FAST, other, 10, 30.0)])
    assert party.rates.newcomers_share_fps(FAST, NOBODY) == pytest.approx(5.0, rel=0.1)


@pytest.mark.parametrize("posted", [-5.0, 1e300, math.nan, math.inf])
def test_nonsense_of_another_worker_takes_no_more_than_a_claim_can(posted: float) -> None:
    status = SharedStatus()
    shares = DeviceShares(status, 0, 2)
    shares.claim("v1", math.inf, 4)
    status.post_worker(1, "stream_share", posted)
    status.post_worker(1, "streams", 4.0)
    assert 0.5 - 1e-9 <= shares.share("v1") <= 1.0


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 3), st.integers(0, 50)), min_size=1, max_size=8))
def test_the_parts_of_all_never_exceed_the_device_and_leave_nothing_that_is_wanted(
    claims: list[tuple[float, int]],
) -> None:
    everyone = workers(len(claims))
    for shares, (share, streams) in zip(everyone, claims, strict=True):
        shares.claim("v1", share if streams else 0.0, streams)
    wanted = [min(share, 1.0) if streams else 0.0 for share, streams in claims]
    parts = [shares.share("v1") for shares in everyone]
    used = [min(part, want) for part, want in zip(parts, wanted, strict=True)]
    assert all(part >= 0 for part in parts)
    assert sum(used) == pytest.approx(min(1.0, sum(wanted)), abs=1e-6)


class Recorder(SharedStatus):
    """Notes which fields of which worker were written."""

    def __init__(self) -> None:
        super().__init__()
        self.posted: set[tuple[int, str]] = set()

    def post_worker(self, number: int, field: str, value: float) -> None:
        super().post_worker(number, field, value)
        self.posted.add((number, field))


def test_the_workers_of_a_service_divide_its_device() -> None:
    status = Recorder()
    make_routes(shared_status=status, number=1, workers=2)
    assert (1, "stream_share") in status.posted
