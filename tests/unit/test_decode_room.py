"""Long decodes leave a decoder for short ones, and pixels are bounded; nothing idles without need."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamer.scheduling.decode_room import LONG_MS, SHORT_REMEMBERED_S, STAGED_MS, Decode, DecodeRoom

LONG, SHORT = 500.0, 5.0


def begin(room: DecodeRoom, expected_ms: float, now: float = 0.0, nbytes: int = 0) -> Decode:
    decode = Decode(expected_ms, nbytes)
    room.begin(decode, now)
    return decode


def test_one_decoder_is_kept_while_short_decodes_come() -> None:
    room = DecodeRoom(2)
    room.end(begin(room, SHORT))
    begin(room, LONG)
    assert not room.admits(LONG, 0, 1.0)
    assert room.held
    assert room.admits(SHORT, 0, 1.0)


def test_long_decodes_use_all_decoders_when_nobody_else_is_there() -> None:
    room = DecodeRoom(2)
    begin(room, LONG)
    assert room.admits(LONG, 0, 0.0)
    room = DecodeRoom(2)
    room.end(begin(room, SHORT))
    begin(room, LONG)
    assert room.admits(LONG, 0, SHORT_REMEMBERED_S + 1.0)


def test_a_decode_that_turns_out_long_counts_as_long() -> None:
    room = DecodeRoom(2)
    begin(room, SHORT, now=0.0)
    assert room.admits(LONG, 0, LONG_MS / 2e3)
    assert not room.admits(LONG, 0, 1.0)


def test_four_decoders_take_three_long_ones() -> None:
    room = DecodeRoom(4)
    room.end(begin(room, SHORT))
    for _ in range(3):
        assert room.admits(LONG, 0, 0.0)
        begin(room, LONG)
    assert not room.admits(LONG, 0, 0.0)


def test_images_are_bounded_in_memory_but_a_single_one_is_always_taken() -> None:
    room = DecodeRoom(2, memory_bytes=100)
    assert room.admits(SHORT, 1000, 0.0)
    large = begin(room, SHORT, nbytes=60)
    assert not room.admits(SHORT, 60, 0.0)
    assert room.admits(SHORT, 40, 0.0)
    room.end(large)
    assert room.admits(SHORT, 1000, 0.0)


def test_little_work_waits_for_a_decoder() -> None:
    room = DecodeRoom(2)
    for _ in range(2):
        begin(room, 3 * STAGED_MS)
    assert not room.open
    room = DecodeRoom(2)
    for _ in range(8):
        assert room.open
        begin(room, STAGED_MS / 5)


@given(st.lists(st.tuples(st.floats(0.1, 1000.0), st.integers(0, 50), st.booleans()), max_size=80))
def test_what_began_and_ended_leaves_nothing_behind(steps: list[tuple[float, int, bool]]) -> None:
    room = DecodeRoom(2, memory_bytes=100)
    running: list[Decode] = []
    for number, (expected_ms, nbytes, ends) in enumerate(steps):
        if ends and running:
            room.end(running.pop(0))
        # An idle pool takes everything: no state may make it stand still.
        assert running or (room.open and room.admits(expected_ms, nbytes, float(number)))
        if room.open and room.admits(expected_ms, nbytes, float(number)):
            running.append(begin(room, expected_ms, float(number), nbytes))
    for decode in running:
        room.end(decode)
    assert len(room) == 0
    assert room.open
    assert room.admits(1000.0, 50, 1e6)
