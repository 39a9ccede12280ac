"""Tests that the connections of one client take turns by cost, and no POST is lost or answered twice."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.core.fair_queueing import FairShare, Flow
from streamer.scheduling.post_queue import MAX_CONNECTIONS, PostQueue


@dataclass(eq=False)
class Image:
    """Stands for an image that was posted over a connection."""

    connection: int
    expected_s: float = 0.02
    tag: float = 0.0


def a_flow(client: int = 1) -> Flow:
    return FairShare({"post": 1.0}).flow("post", client)


def take(queue: PostQueue[Image], flow: Flow) -> Image:
    image = queue.ready(lambda _: True)[flow]
    queue.take(flow, image)
    return image


def test_images_of_a_connection_keep_their_order() -> None:
    queue, flow = PostQueue[Image](), a_flow()
    images = [Image(1) for _ in range(4)]
    for image in images:
        queue.add(flow, image)
    assert [take(queue, flow) for _ in images] == images
    assert len(queue) == 0


def test_a_connection_that_was_expensive_waits_for_one_that_was_not() -> None:
    queue, flow = PostQueue[Image](), a_flow()
    dear = Image(1, expected_s=0.7)
    queue.add(flow, dear)
    flow.running = 1
    assert take(queue, flow) is dear
    queue.add(flow, again := Image(1, expected_s=0.7))
    queue.add(flow, polite := Image(2))
    assert [take(queue, flow), take(queue, flow)] == [polite, again]


def test_a_cheap_image_does_not_wait_for_expensive_ones_of_other_connections() -> None:
    queue, flow = PostQueue[Image](), a_flow()
    for connection in range(10):
        queue.add(flow, Image(connection, expected_s=0.5))
    queue.add(flow, cheap := Image(99, expected_s=0.02))
    assert take(queue, flow) is cheap


def test_an_expensive_image_waits_for_a_bounded_number_of_cheap_ones() -> None:
    queue, flow = PostQueue[Image](), a_flow()
    queue.add(flow, dear := Image(0, expected_s=0.5))
    for connection in range(1, 100):  # each on another connection, as soon as the last has started
        queue.add(flow, Image(connection, expected_s=0.02))
        if take(queue, flow) is dear:
            break
    assert 20 <= connection <= 30


def test_a_cost_that_was_not_expected_is_paid_by_the_connection() -> None:
    queue, flow = PostQueue[Image](), a_flow()
    queue.add(flow, liar := Image(1, expected_s=0.01))
    take(queue, flow)
    flow.running = 1
    queue.settle(flow, liar, 2.0)
    queue.add(flow, again := Image(1))
    for _ in range(20):
        queue.add(flow, Image(2))
    assert next(index for index in range(21) if take(queue, flow) is again) == 20


def test_images_of_about_the_same_cost_go_in_order_of_arrival() -> None:
    queue, flow = PostQueue[Image](), a_flow()
    images = [Image(connection, expected_s=0.04 - connection * 1e-4) for connection in range(10)]
    for image in images:
        queue.add(flow, image)
    assert [take(queue, flow) for _ in images] == images


def test_only_images_that_fit_are_ready_and_others_may_pass_them() -> None:
    queue, flow = PostQueue[Image](), a_flow()
    queue.add(flow, Image(1, expected_s=0.7))
    queue.add(flow, short := Image(2))
    assert queue.ready(lambda image: image.expected_s < 0.1) == {flow: short}
    assert queue.ready(lambda _: False) == {}


def test_what_would_start_earlier_is_what_a_newcomer_waits_for() -> None:
    queue, flow = PostQueue[Image](), a_flow()
    assert queue.ahead_s(flow, 1) == 0.0
    for connection in (1, 2, 3):
        queue.add(flow, Image(connection, expected_s=0.5))
    assert queue.ahead_s(flow, 4, 0.5) == pytest.approx(1.5)
    assert queue.ahead_s(flow, 4, 0.02) == 0.0
    assert queue.ahead_s(a_flow(2), 4) == 0.0


def test_cheap_images_that_have_not_come_yet_go_before_an_expensive_one_too() -> None:
    queue, flow = PostQueue[Image](), a_flow()
    for connection in (1, 2, 3):
        queue.add(flow, Image(connection, expected_s=0.1))
    assert queue.ahead_s(flow, 4, 0.5) == pytest.approx(3 * 0.5)
    assert queue.ahead_s(flow, 4, 0.1) == pytest.approx(3 * 0.1)


def test_a_withdrawn_image_is_gone_once() -> None:
    queue, flow = PostQueue[Image](), a_flow()
    queue.add(flow, image := Image(1))
    assert queue.remove(flow, image)
    assert not queue.remove(flow, image)
    assert len(queue) == 0


def test_what_was_put_back_goes_first() -> None:
    queue, flow = PostQueue[Image](), a_flow()
    queue.add(flow, first := Image(1))
    queue.add(flow, second := Image(1))
    take(queue, flow)
    queue.settle(flow, first, 0.01, again=True)
    assert [take(queue, flow), take(queue, flow)] == [first, second]


def test_a_client_without_work_is_forgotten_and_connections_are_bounded() -> None:
    queue, flow = PostQueue[Image](), a_flow()
    images = [Image(connection) for connection in range(3 * MAX_CONNECTIONS)]
    for image in images:
        queue.add(flow, image)
    assert len(queue._by_flow[flow].finish_s) <= MAX_CONNECTIONS
    for _ in images:
        queue.settle(flow, take(queue, flow), 0.02)
    assert queue._by_flow == {}


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.sampled_from("add take drop")), max_size=120)
)
def test_every_image_leaves_exactly_once(actions: list[tuple[int, int, str]]) -> None:
    queue, share = PostQueue[Image](), FairShare({"post": 1.0})
    left: list[Image] = []
    added: list[tuple[Flow, Image]] = []
    for client, connection, action in actions:
        flow = share.flow("post", client)
        if action in "add":
            image = Image(connection)
            queue.add(flow, image)
            added.append((flow, image))
        elif action in "take" and flow in (ready := queue.ready(lambda _: True)):
            queue.take(flow, ready[flow])
            left.append(ready[flow])
        elif action in "drop" and added and queue.remove(*added[-1]):
            left.append(added[-1][1])
    left += queue.clear()
    assert sorted(map(id, left)) == sorted(id(image) for _, image in added)
    assert len(queue) == 0
