"""The client matches results to its frames although it does not know where its RTP timestamps begin."""

from __future__ import annotations

import random

import pytest

from streamer.client.address import video_address
from streamer.client.video_connection import DITHER_TICKS, RtpOrigin, dithered

WRAP = 1 << 32


@pytest.mark.parametrize("seed", range(20))
def test_the_beginning_is_known_after_a_few_results_even_if_most_are_lost(seed: int) -> None:
    drawn = random.Random(seed)
    start = drawn.randrange(WRAP)
    sent = [number * 3000 + drawn.randrange(DITHER_TICKS) for number in range(60)]
    origin = RtpOrigin()
    answered = drawn.sample(range(60), 5)
    for number in answered:
        origin.learn((start + sent[number]) % WRAP, sent)
    assert origin.known
    for number in range(60):
        assert origin.to_pts((start + sent[number]) % WRAP, sent) == sent[number]
        assert origin.to_pts((start + sent[number] + 1) % WRAP, sent) == sent[number]
    assert origin.to_pts((start + sent[-1] + 100) % WRAP, sent) is None


def test_nothing_is_claimed_before_it_is_known() -> None:
    origin = RtpOrigin()
    assert origin.to_pts(5, [1, 2]) is None
    origin.learn(5, [1, 2])
    assert not origin.known
    assert origin.to_pts(5, [1, 2]) is None
    origin.learn(5, [])
    assert not origin.known


def test_a_wrong_beginning_is_given_up() -> None:
    origin = RtpOrigin()
    origin.learn(1000, [0, 10])
    origin.learn(5000, [7, 90])  # no earlier candidate fits, so the search starts over
    origin.learn(5083, [7, 90])
    assert origin.known
    assert origin.to_pts(5083, [7, 90]) == 90


def test_times_are_dithered_by_less_than_three_milliseconds() -> None:
    times = {dithered(1000) for _ in range(200)}
    assert len(times) > 50
    assert max(times) < 1000 + 270


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("ws://h:1/v2/stream", "http://h:1/v2/webrtc"),
        ("wss://h/prefix/v1/stream/", "https://h/prefix/v1/webrtc"),
        ("http://h:8000", "http://h:8000/v1/webrtc"),
        ("h:8000", "http://h:8000/v1/webrtc"),
        ("https://h/v1/webrtc", "https://h/v1/webrtc"),
    ],
)
def test_the_address_of_a_stream_leads_to_that_of_video(given: str, expected: str) -> None:
    assert video_address(given).url == expected
