"""The version queue decides whose frame is decoded next, and at which rate each stream may send."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from inference.core.detection_params import DetectionParams
from inference.core.detections import NO_BOXES
from inference.ipc.served_model import ServedModel
from inference.ipc.wire import Result, Status
from inference.models.model import Family, ModelInfo, Placement
from streamer.imaging.image_header import Limits
from streamer.scheduling.clients import NOBODY, Client
from streamer.scheduling.decode_limiter import DecodeLimiter
from streamer.scheduling.job import Job
from streamer.scheduling.stream_rates import FAIR_RATE_S
from streamer.scheduling.version_queue import VersionQueue
from tests.unit.images import jpeg_claiming

INFO = ModelInfo("m", "0", Family.YOLO, ("a",), 320, 320, Placement.CENTRED, 114)
#: A model that runs one frame at a time, in 20 ms: 50 frames per second.
MODEL = ServedModel(0, "v1", INFO, {1: 20.0}, in_flight=2, parallel=1, inference_threads=1)


POSTER = Client("poster", 7)


def job(stream: int) -> Job:
    return Job(b"", 0, DetectionParams(), 1e9, stream, lambda _: None, Limits())


def post(
    client: Client = POSTER,
    *,
    connection: int = 1,
    size: tuple[int, int] = (640, 480),
    progressive: bool = False,
) -> Job:
    made = job(0)
    made.data = jpeg_claiming(*size, progressive=progressive)
    made.client, made.connection = client, connection
    return made


@dataclass
class FakeStream:
    """A stream that has ``frames`` frames, all of them too old if ``stale``."""

    key: int
    declared_fps: float | None = None
    stale: bool = False
    frames: int = 1_000_000
    client: Client = NOBODY
    grants: list[float | None] = field(default_factory=list)

    @property
    def pending(self) -> bool:
        return self.frames > 0

    def has_ready_frame(self, _: float) -> bool:
        return self.pending

    def take(self, _: float) -> Job | None:
        if self.stale:
            self.frames = 0
            return None
        self.frames -= 1
        taken = job(self.key)
        taken.client = self.client
        return taken

    def grant(self, max_fps: float | None) -> None:
        self.grants.append(max_fps)


def opened(*streams: FakeStream) -> VersionQueue:
    queue = VersionQueue()
    for stream in streams:
        queue.open(stream)
        queue.offer(stream)
    return queue


def served(queue: VersionQueue, count: int) -> list[int]:
    taken = []
    for _ in range(count):
        job = queue.next(2, 0.0)
        assert job is not None
        run(queue, job)
        taken.append(job.stream)
    return taken


def run(queue: VersionQueue, job: Job, decode_ms: float = 5.0, inference_s: float = 0.02) -> None:
    """Run a job through decoding and inference, all at time 0."""
    queue.begin(job, 0.0)
    job.decode_cpu_ms = decode_ms
    queue.decoded(job, 0.0)
    queue.end(job, inference_s, 0.0)


def begun(queue: VersionQueue, room: int = 2) -> Job:
    """Take the next job at time 0 and decode it, so that it is in the inference process."""
    job = queue.next(room, 0.0)
    assert job is not None
    queue.begin(job, 0.0)
    job.decode_cpu_ms = 5.0
    queue.decoded(job, 0.0)
    return job


def test_what_a_dead_process_took_with_it_goes_first_and_in_order() -> None:
    queue = opened(*(FakeStream(number, client=Client(str(number), number)) for number in (1, 2, 3)))
    lost = [begun(queue) for _ in range(3)]
    queue.add(post(), 0.0)
    for _ in range(2):  # the next process dies, too
        for each in lost:
            queue.lost(each, 0.0, again=True)
        assert not queue.idle
        assert [begun(queue) for _ in lost] == lost
    passer = queue.next(2, 0.0)
    assert passer is not None
    assert passer.stream == 0
    queue.begin(passer, 0.0)
    assert queue.next(2, 0.0) is None, "no more than the device has room for"


def test_a_stream_does_not_pass_its_own_frames_that_were_lost() -> None:
    """Lost frames run again even if that exceeds ``room``; a newer frame waits until there is room."""
    streams = [FakeStream(number, client=Client(str(number), number)) for number in (1, 2, 3)]
    queue = opened(*streams)
    lost = [begun(queue) for _ in streams]
    for each in lost:
        queue.lost(each, 0.0, again=True)
    taken = [begun(queue) for _ in streams]
    assert taken == lost
    queue.end(taken[0], 0.02, 0.0)
    assert queue.next(2, 0.0) is None
    assert begun(queue, room=3) not in lost


def test_what_was_lost_is_not_passed_by_what_came_later() -> None:
    queue = VersionQueue(DecodeLimiter(4))
    for _ in range(50):  # the client has been busy for a while
        queue.add(post(), 0.0)
        last = begun(queue)
        queue.add(post(), 0.0)
        queue.end(last, 0.02, 0.0)
        queue.end(begun(queue), 0.02, 0.0)
    images = [post(connection=number) for number in range(3)]
    for image in images:
        queue.add(image, 0.0)
        assert begun(queue, room=4) is image
    for _ in range(2):
        for image in images:
            queue.lost(image, 0.0, again=True)
        queue.add(post(connection=9), 0.0)
        assert [begun(queue, room=4) for _ in images] == images


def test_a_connection_pays_for_each_try_and_once_for_what_it_gets() -> None:
    queue, neighbour = VersionQueue(), post(connection=2)
    queue.add(image := post(connection=1), 0.0)
    queue.add(neighbour, 0.0)
    for _ in range(2):
        assert begun(queue) is image
        queue.lost(image, 0.0, again=True)
    assert begun(queue) is image
    queue.end(image, 0.02, 0.0)
    assert neighbour.flow is not None
    line = queue._posts._by_flow[neighbour.flow]
    assert line.finish_s[1] == pytest.approx(3 * 0.005 + 0.02)


def test_a_restart_forgives_nothing() -> None:
    """A queue whose only job waits to run again is not idle, so its client's debt stays."""
    queue, client = VersionQueue(), Client("greedy", 1)
    queue.add(image := post(client), 0.0)
    begun(queue)
    image.decode_cpu_ms = 500.0
    assert image.flow is not None
    owed_s = queue._share.debt_s(image.flow)
    queue.lost(image, 0.0, again=True)
    assert queue._share.debt_s(image.flow) >= owed_s > 0


def test_clients_whose_images_never_began_are_forgotten() -> None:
    queue = VersionQueue()
    for number in range(3):
        queue.add(late := post(Client(str(number), number)), 0.0)
        if number:
            assert queue.next(2, 0.0) is late
            queue.skip(late)
        else:
            assert queue.withdraw(late)
    assert queue.idle
    assert not queue._posts._by_flow


def test_streams_are_served_in_turn_and_posts_have_their_share() -> None:
    queue = opened(FakeStream(1), FakeStream(2), FakeStream(3))
    assert sorted(served(queue, 3)) == [1, 2, 3]
    for _ in range(100):
        queue.add(post(), 0.0)
    assert 9 <= served(queue, 40).count(0) <= 11


def test_nothing_goes_while_the_device_is_full_but_one_post() -> None:
    queue = opened(FakeStream(1))
    for _ in range(2):
        frame = queue.next(2, 0.0)
        assert frame is not None
        queue.begin(frame, 0.0)
    assert queue.next(2, 0.0) is None
    for expected in (2, 3):
        assert queue._in_flight == expected
        queue.add(post(), 0.0)
        taken = queue.next(2, 0.0)
        if expected == 2:
            assert taken is not None
            queue.begin(taken, 0.0)
            assert taken.stream == 0
        else:
            assert taken is None


def test_a_stream_whose_frames_were_all_too_old_keeps_its_turn() -> None:
    old = FakeStream(1, stale=True)
    queue = opened(old, FakeStream(2))
    assert served(queue, 2) == [2, 2]
    assert 1 not in queue._waiting
    old.stale, old.frames = False, 5
    queue.offer(old)
    assert served(queue, 1) == [1]


def result(queue_ms: float, inference_ms: float = 20.0, batch_size: int = 1) -> Result:
    return Result(1, Status.OK, NO_BOXES, queue_ms, inference_ms, 0.1, batch_size)


def arrive(queue: VersionQueue, stream: FakeStream, fps: float) -> None:
    for _ in range(int(fps * FAIR_RATE_S)):
        queue.offer(stream)


def test_under_overload_the_greedy_are_limited_to_what_the_modest_leave() -> None:
    modest, greedy = FakeStream(1), FakeStream(2)
    queue = opened(modest, greedy)
    for tick in range(20):
        arrive(queue, modest, 6)
        arrive(queue, greedy, 200)
        queue.observe(MODEL, greedy.key, result(queue_ms=30.0))
        queue.rates.share(MODEL, tick * FAIR_RATE_S)
    assert modest.grants == []
    assert greedy.grants[-1] == pytest.approx(44, abs=1)


def test_a_newcomer_is_promised_what_is_left() -> None:
    stream = FakeStream(1)
    queue = opened(stream)
    assert queue.rates.newcomers_share_fps(MODEL, NOBODY) == pytest.approx(50)
    for tick in range(20):
        arrive(queue, stream, 20)
        queue.rates.share(MODEL, tick * FAIR_RATE_S)
    assert queue.rates.newcomers_share_fps(MODEL, NOBODY) == pytest.approx(30, abs=1)
    queue.observe(MODEL, stream.key, result(queue_ms=30.0))
    assert queue.rates.newcomers_share_fps(MODEL, NOBODY) == pytest.approx(25, abs=1), (
        "it waits, so it would take more"
    )
    queue.close(stream.key)
    assert queue.rates.newcomers_share_fps(MODEL, NOBODY) == pytest.approx(50)


def test_a_warm_up_beside_a_busy_neighbour_does_not_throttle_for_good() -> None:
    queue = opened(FakeStream(1))
    for _ in range(200):
        queue.observe(MODEL, 1, result(queue_ms=0.0, inference_ms=5.0))
    assert queue.rates.capacity_fps(MODEL) == pytest.approx(200, rel=0.01)
    for _ in range(200):
        queue.observe(MODEL, 1, result(queue_ms=0.0, inference_ms=100.0))
    assert queue.rates.capacity_fps(MODEL) == pytest.approx(50), "never less than the warm-up promised"


def test_lanes_that_share_a_device_are_reckoned_together() -> None:
    """Runs take longer because the threads wait for each other, but two runs end in that time."""
    model = ServedModel(0, "v1", INFO, {1: 6.0, 16: 17.6}, in_flight=48, parallel=1, inference_threads=2)
    queue = opened(FakeStream(1))
    assert queue.rates.capacity_fps(model) == pytest.approx(16 / 17.6e-3)
    for number in range(100):
        queue.observe(model, 1, Result(number, Status.OK, NO_BOXES, 0.0, 24.4, 0.1, 16))
    assert queue.rates.capacity_fps(model) == pytest.approx(2 * 16 / 24.4e-3)


def test_only_a_client_that_has_had_little_exceeds_the_bound() -> None:
    greedy, other, polite = (Client(name, number) for number, name in enumerate("gop", 1))
    queue = VersionQueue(DecodeLimiter(4))
    for _ in range(20):
        for client in (greedy, other):
            queue.add(post(client), 0.0)
            queue.end(begun(queue), 0.02, 0.0)
    queue.add(post(other), 0.0)
    begun(queue, room=1)
    queue.add(post(greedy), 0.0)
    assert queue.next(1, 0.0) is None, "it has nothing in flight, but had as much as anybody"
    queue.add(post(polite), 0.0)
    assert begun(queue, room=1).client is polite
    stream = FakeStream(9, client=Client("s", 9))
    queue.open(stream)
    queue.offer(stream)
    assert begun(queue, room=1).stream == 9
    assert queue.next(2, 0.0) is None, "no more than two beyond the bound"
    assert queue.next(4, 0.0) is not None


def test_a_client_that_was_greedy_counts_as_absent_when_it_has_had_little_for_a_while() -> None:
    greedy, other = Client("g", 1), Client("o", 2)
    queue = VersionQueue(DecodeLimiter(4))
    for _ in range(20):
        queue.add(post(greedy), 0.0)
        queue.end(begun(queue), 0.02, 0.0)
    queue.add(post(other), 5.0)
    queue.end(begun_at(queue, 5.0), 0.02, 5.0)
    queue.add(post(other), 5.0)
    begun_at(queue, 5.0)
    queue.add(post(greedy), 5.0)
    assert queue.next(1, 5.0) is not None


def begun_at(queue: VersionQueue, now: float) -> Job:
    """Take the next job and decode it, at the time ``now``, so that it is in the inference process."""
    job = queue.next(2, now)
    assert job is not None
    queue.begin(job, now)
    job.decode_cpu_ms = 5.0
    queue.decoded(job, now)
    return job
