"""Long decodes leave a decoder for short ones, and memory is bounded, but an idle pool takes any decode."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamer.scheduling.decode_limiter import LONG_MS, SHORT_REMEMBERED_S, STAGED_MS, Decode, DecodeLimiter

LONG, SHORT = 500.0, 5.0


def begin(decode_limiter: DecodeLimiter, expected_ms: float, now: float = 0.0, nbytes: int = 0) -> Decode:
    decode = Decode(expected_ms, nbytes)
    decode_limiter.begin(decode, now)
    return decode


def test_one_decoder_is_kept_while_short_decodes_come() -> None:
    decode_limiter = DecodeLimiter(2)
    decode_limiter.end(begin(decode_limiter, SHORT))
    begin(decode_limiter, LONG)
    assert not decode_limiter.admits(LONG, 0, 1.0)
    assert decode_limiter.held
    assert decode_limiter.admits(SHORT, 0, 1.0)


def test_long_decodes_use_all_decoders_when_nobody_else_is_there() -> None:
    decode_limiter = DecodeLimiter(2)
    begin(decode_limiter, LONG)
    assert decode_limiter.admits(LONG, 0, 0.0)
    decode_limiter = DecodeLimiter(2)
    decode_limiter.end(begin(decode_limiter, SHORT))
    begin(decode_limiter, LONG)
    assert decode_limiter.admits(LONG, 0, SHORT_REMEMBERED_S + 1.0)


def test_a_decode_that_turns_out_long_counts_as_long() -> None:
    decode_limiter = DecodeLimiter(2)
    begin(decode_limiter, SHORT, now=0.0)
    assert decode_limiter.admits(LONG, 0, LONG_MS / 2e3)
    assert not decode_limiter.admits(LONG, 0, 1.0)


def test_four_decoders_take_three_long_ones() -> None:
    decode_limiter = DecodeLimiter(4)
    decode_limiter.end(begin(decode_limiter, SHORT))
    for _ in range(3):
        assert decode_limiter.admits(LONG, 0, 0.0)
        begin(decode_limiter, LONG)
    assert not decode_limiter.admits(LONG, 0, 0.0)


def test_images_are_bounded_in_memory_but_a_single_one_is_always_taken() -> None:
    decode_limiter = DecodeLimiter(2, memory_bytes=100)
    assert decode_limiter.admits(SHORT, 1000, 0.0)
    large = begin(decode_limiter, SHORT, nbytes=60)
    assert not decode_limiter.admits(SHORT, 60, 0.0)
    assert decode_limiter.admits(SHORT, 40, 0.0)
    decode_limiter.end(large)
    assert decode_limiter.admits(SHORT, 1000, 0.0)


def test_little_work_waits_for_a_decoder() -> None:
    decode_limiter = DecodeLimiter(2)
    for _ in range(2):
        begin(decode_limiter, 3 * STAGED_MS)
    assert not decode_limiter.open
    decode_limiter = DecodeLimiter(2)
    for _ in range(8):
        assert decode_limiter.open
        begin(decode_limiter, STAGED_MS / 5)


@given(st.lists(st.tuples(st.floats(0.1, 1000.0), st.integers(0, 50), st.booleans()), max_size=80))
def test_what_began_and_ended_leaves_nothing_behind(steps: list[tuple[float, int, bool]]) -> None:
    decode_limiter = DecodeLimiter(2, memory_bytes=100)
    running: list[Decode] = []
    for number, (expected_ms, nbytes, ends) in enumerate(steps):
        if ends and running:
            decode_limiter.end(running.pop(0))
        # While nothing runs, every decode must be admitted, or the pool would never run anything again.
        assert running or (decode_limiter.open and decode_limiter.admits(expected_ms, nbytes, float(number)))
        if decode_limiter.open and decode_limiter.admits(expected_ms, nbytes, float(number)):
            running.append(begin(decode_limiter, expected_ms, float(number), nbytes))
    for decode in running:
        decode_limiter.end(decode)
    assert len(decode_limiter) == 0
    assert decode_limiter.open
    assert decode_limiter.admits(1000.0, 50, 1e6)
