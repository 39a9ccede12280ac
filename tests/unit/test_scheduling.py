"""Greedy and polite clients share decoders by cost, also when a process dies or refuses an image."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.imaging.image_header import ImageError, ImageErrorCode
from streamer.scheduling.clients import NOBODY, Client
from streamer.scheduling.decode_limiter import DecodeLimiter
from streamer.scheduling.job import Job
from streamer.scheduling.service_rate import ServiceRate
from streamer.scheduling.version_queue import VersionQueue
from tests.unit.test_version_queue import FakeStream, opened, post, run

#: Seconds of work that two decoders and two inference threads do per second.
MOST = 4.0


def large(client: Client, connection: int) -> Job:
    return post(client, connection=connection, size=(8000, 4000), progressive=True)


def take(queue: VersionQueue, room: int = 4, now: float = 0.0) -> Job:
    job = queue.next(room, now)
    assert job is not None
    return job


def charged(queue: VersionQueue) -> float:
    return sum(flow.charged_s for flow in queue._share._flows.values())


def test_clients_get_equal_time_and_a_client_with_many_streams_counts_as_one() -> None:
    many, single = Client("many", 1), Client("single", 2)
    queue = opened(*(FakeStream(key, client=many) for key in range(1, 21)), FakeStream(21, client=single))
    got: Counter[int] = Counter()
    for _ in range(400):
        job = take(queue)
        run(queue, job)
        got[job.client.number if job.client is not NOBODY else (1 if job.stream <= 20 else 2)] += 1
    assert got[1] == pytest.approx(got[2], rel=0.05)


def test_expensive_frames_are_paid_for() -> None:
    cheap, dear = Client("cheap", 1), Client("dear", 2)
    queue = opened(FakeStream(1, client=cheap), FakeStream(2, client=dear))
    got: Counter[int] = Counter()
    for _ in range(200):
        job = take(queue)
        run(queue, job, decode_ms=5.0 if job.stream == 1 else 75.0, inference_s=0.02)
        got[job.stream] += 1
    assert got[1] / got[2] == pytest.approx(95 / 25, rel=0.1)


def test_a_client_pays_for_the_processor_time_of_its_video() -> None:
    video, images = Client("video", 1), Client("images", 2)
    queue = opened(FakeStream(1, client=video), FakeStream(2, client=images))
    got: Counter[int] = Counter()
    for _ in range(300):
        job = take(queue)
        run(queue, job, decode_ms=0.0, inference_s=0.02)
        got[job.stream] += 1
        if job.stream == 1:
            queue.charge(video, 0.04)
    assert got[2] == pytest.approx(3 * got[1], abs=6)


def test_a_polite_post_passes_expensive_ones_of_other_clients_and_of_its_own_address() -> None:
    for polite in (Client("polite", 99), Client("greedy 1", 1)):
        queue = VersionQueue(DecodeLimiter(2))
        run(queue, post_taken(queue, Client("earlier", 50)))
        for number in range(1, 11):
            queue.add(large(Client(f"greedy {number}", number), number), 0.0)
        long = take(queue)
        queue.begin(long, 0.0)
        assert queue.next(4, 0.0) is None, "the other decoder is kept for short ones"
        queue.add(wanted := post(polite, connection=77), 0.1)
        assert take(queue, now=0.1) is wanted


def test_large_images_go_one_by_one_beside_any_number_of_small_ones() -> None:
    queue = VersionQueue(DecodeLimiter(4))
    for number in (1, 2):
        queue.add(large(Client(f"large {number}", number), number), 0.0)
    queue.begin(first := take(queue), 0.0)
    assert first.decode is not None and first.decode.nbytes > 80e6
    assert queue.next(4, 0.0) is None
    for number in (3, 4):
        queue.add(post(Client(f"small {number}", number)), 0.0)
        queue.begin(take(queue), 0.0)
    queue.decoded(first, 0.1)
    assert take(queue).kind == first.kind


def post_taken(queue: VersionQueue, client: Client) -> Job:
    queue.add(post(client), 0.0)
    return take(queue)


@pytest.mark.parametrize("kind", ["post", "live"])
def test_many_clients_of_one_class_never_keep_one_of_the_other_out(kind: str) -> None:
    """Each client has one item in flight at a time, like a connection that waits for each answer."""
    room = DecodeLimiter(2)
    many = [Client(f"many {number}", number) for number in range(1, 21)]
    streams = [FakeStream(number, client=client, frames=0) for number, client in enumerate(many, 1)]
    queue, polite = VersionQueue(room), Client("polite", 99)
    for stream in streams:
        queue.open(stream)
    other = FakeStream(99, client=polite, frames=0)
    queue.open(other)
    running: list[Job] = []

    def pump() -> None:
        while (job := queue.next(4, 0.0)) is not None:
            queue.begin(job, 0.0)
            queue.decoded(job, 0.0)
            running.append(job)

    def ask(client: Client, *, by_post: bool) -> None:
        if by_post:
            queue.add(post(client), 0.0)
        else:
            stream = other if client is polite else streams[client.number - 1]
            stream.frames += 1
            queue.offer(stream)

    for client in many:
        ask(client, by_post=kind == "post")
    pump()
    waits = []
    for _ in range(20):
        ask(polite, by_post=kind != "post")
        waited = 0
        while not any(job.client is polite for job in running):
            done = running.pop(0)
            queue.end(done, 0.02, 0.0)
            ask(done.client, by_post=kind == "post")
            pump()
            waited += 1
            assert waited < 50, "it starves"
        waits.append(waited)
        mine = next(job for job in running if job.client is polite)
        running.remove(mine)
        queue.end(mine, 0.02, 0.0)
        for _ in range(12):
            done = running.pop(0)
            queue.end(done, 0.02, 0.0)
            ask(done.client, by_post=kind == "post")
            pump()
    assert sum(waits) / len(waits) <= 3.0


def test_a_client_of_which_nothing_runs_may_exceed_the_bound_by_one() -> None:
    greedy, polite = Client("greedy", 1), Client("polite", 2)
    queue = opened(FakeStream(1, client=greedy), FakeStream(2, client=greedy))
    for _ in range(2):
        queue.begin(take(queue, room=2), 0.0)
    assert queue.next(2, 0.0) is None
    late = FakeStream(3, client=polite)
    queue.open(late)
    queue.offer(late)
    assert take(queue, room=2).stream == 3


def test_the_inference_process_dies_twice_and_every_cost_is_paid_once() -> None:
    queue, client = VersionQueue(DecodeLimiter(2)), Client("client", 1)
    queue.add(job := post(client), 0.0)
    for _ in range(2):
        assert take(queue) is job
        queue.begin(job, 0.0)
        job.decode_cpu_ms = 10.0
        queue.decoded(job, 0.0)
        queue.lost(job, 0.0, again=True)
    assert take(queue) is job
    run(queue, job, decode_ms=10.0, inference_s=0.02)
    assert charged(queue) == pytest.approx(0.05)
    assert queue.idle
    assert not queue._share.running
    assert len(queue._decode_limiter) == 0


def test_a_refused_image_is_paid_by_the_time_that_it_held_a_decoder() -> None:
    queue, client = VersionQueue(DecodeLimiter(2)), Client("client", 1)
    queue.add(job := post(client), 0.0)
    queue.begin(take(queue), 1.0)
    job.fault = ImageError(ImageErrorCode.DAMAGED, "too slow")
    queue.decoded(job, 2.5)
    queue.end(job, 0.0, 2.5)
    assert charged(queue) == pytest.approx(1.5)
    assert client.cost_factor > 100, "its next image is expected to be as slow"


def test_a_post_waits_for_its_own_backlog_at_its_share() -> None:
    queue, greedy, other = VersionQueue(DecodeLimiter(2)), Client("greedy", 1), Client("other", 2)
    assert queue.expected_wait_s(greedy, 1, 0.0) == 0.0
    for number in range(100):
        queue.add(post(greedy, connection=number), 0.0)
    alone_s = queue.expected_wait_s(greedy, 500, 0.0, 5.0)
    assert alone_s > 0
    assert queue.is_alone(greedy)
    assert queue.expected_wait_s(other, 1, 0.0) == 0.0
    for _ in range(400):
        queue.add(job := post(other), 0.0)
        assert queue.withdraw(job)
        run(queue, job)
    queue.add(post(other), 0.0)
    assert queue.expected_wait_s(greedy, 500, 0.0, 5.0) == pytest.approx(2 * alone_s)
    assert not queue.is_alone(greedy)


def test_the_rate_of_service_is_measured_while_work_waits_and_forgotten_slowly() -> None:
    queue = VersionQueue()
    flow = queue._share.flow("post", 1)
    rate = ServiceRate()
    assert rate.available_per_s(flow, 0.5, 0.0, MOST) == pytest.approx(0.9 * MOST)
    for step in range(100):
        rate.ended(flow, 0.04, step * 0.04, backlog=True, at_most=MOST)
    assert rate.available_per_s(flow, 1.0, 4.0, MOST) == pytest.approx(1.0, rel=0.15)
    for step in range(100):
        rate.ended(flow, 0.04, 4.0 + step * 0.2, backlog=False, at_most=MOST)
    assert rate.available_per_s(flow, 1.0, 24.0, MOST) < 2.0


@pytest.mark.parametrize(("gone", "usable"), [(True, 0.9 * MOST), (False, 1.0)])
def test_the_pause_of_a_restart_is_no_rate_of_service(gone: bool, usable: float) -> None:
    queue = VersionQueue()
    client = Client("one", 1)
    flow = queue._share.flow("post", 1)
    for step in range(20):
        # Every 0.5 s one image is finished; with ``gone``, the process then dies and loses the next one.
        now = step / 2
        for image in (post(client), post(client)):
            queue.add(image, now)
        for inference_s, lost in ((0.01, False), (0.0, gone)):
            job = queue.next(4, now)
            assert job is not None
            queue.begin(job, now)
            queue.decoded(job, now)
            if lost:
                queue.lost(job, now, again=False)
            else:
                queue.end(job, inference_s, now)
        queue.add(post(client), now)
    available_per_s = queue._service.available_per_s(flow, 1.0, 20.0, MOST)
    assert (available_per_s >= usable) is gone, available_per_s


def test_what_others_do_not_use_is_available() -> None:
    queue = VersionQueue()
    greedy, modest = queue._share.flow("post", 1), queue._share.flow("live", 2)
    rate = ServiceRate()
    for step in range(400):
        rate.ended(modest if step % 10 == 0 else greedy, 0.02, step * 0.02, backlog=True, at_most=MOST)
    assert rate.available_per_s(greedy, 0.25, 8.0, MOST) == pytest.approx(0.9, rel=0.15)
    assert rate.available_per_s(modest, 0.75, 8.0, MOST) == pytest.approx(0.75, rel=0.15)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.sampled_from(["post", "large", "live"]),
            st.sampled_from(["ok", "lost", "no"]),
        ),
        max_size=60,
    )
)
def test_work_is_conserved_and_nothing_is_left_behind(steps: list[tuple[int, str, str]]) -> None:
    """Every job ends once, whatever arrives and however runs end, and something runs while anything waits."""
    queue = VersionQueue(DecodeLimiter(2))
    clients = [Client(str(number), number) for number in range(4)]
    streams = [FakeStream(number + 1, client=clients[number], frames=0) for number in range(4)]
    for stream in streams:
        queue.open(stream)
    offered, done = 0, 0
    running: list[tuple[Job, str]] = []

    def finish(job: Job, ending: str) -> None:
        nonlocal done
        job.decode_cpu_ms = 5.0
        job.fault = ImageError(ImageErrorCode.DAMAGED, "no") if ending == "no" else None
        queue.decoded(job, 0.01)
        again = ending == "lost" and job.attempts < 1
        queue.end(job, 0.02 if ending == "ok" else 0.0, 0.02, again=again)
        job.attempts += 1
        done += not again

    def pump() -> None:
        while (job := queue.next(2, 0.0)) is not None:
            queue.begin(job, 0.0)
            running.append((job, "ok"))

    for number, kind, ending in steps:
        offered += 1
        if kind == "live":
            streams[number].frames += 1
            queue.offer(streams[number])
        else:
            client = clients[number]
            queue.add(large(client, number) if kind == "large" else post(client, connection=number), 0.0)
        pump()
        assert running, "something waits, so something runs"
        assert queue._in_flight == len(running) <= 4
        finish(running.pop(0)[0], ending)
    pump()
    while running:
        finish(running.pop(0)[0], "ok")
        pump()
    assert done == offered
    assert queue.idle
    assert (len(queue._decode_limiter), len(queue._share.running), len(queue._posts)) == (0, 0, 0)
