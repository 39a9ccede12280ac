"""Tests the rules of one stream: one outcome per frame, newest wins, acks, windows, drops sent as ranges."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.protocol.server_messages import FlowFields
from streamer.protocol.wire import Codec, DropReason, Frame
from streamer.streams.flow_control import (
    GROW_AFTER,
    MAX_STARTED,
    MAX_VIOLATIONS,
    OVERRUN_BURST,
    WINDOW_MAX_ALL,
    WINDOW_MAX_LIVE,
    WINDOW_START,
    FlowControl,
    WindowExceeded,
)


def frame(seq: int, codec: Codec = Codec.JPEG) -> Frame:
    return Frame(codec, seq, seq * 1000, b"jpeg")


def take(stream: FlowControl, now: float) -> int:
    waiting, _ = stream.take(now, 0.5)
    assert waiting is not None
    return waiting.frame.seq


def only(messages: list[Any]) -> Any:
    """Return the only message; raise ValueError unless there is exactly one."""
    (message,) = messages
    return message


def finish(stream: FlowControl, seq: int) -> FlowFields:
    stream.answered(seq)
    return stream.result_fields()


def test_a_frame_waits_in_the_mailbox_until_it_is_taken() -> None:
    stream = FlowControl(0)
    assert stream.receive(frame(1), 0.0) == []
    assert stream.has_ready_frame(0.0)
    assert take(stream, 0.0) == 1
    assert not stream.has_ready_frame(0.0)
    assert finish(stream, 1) == {"ack": 1, "win": WINDOW_START, "dropped": 0}


def test_the_newest_frame_wins_and_the_older_one_is_told_as_superseded() -> None:
    stream = FlowControl(0)
    stream.receive(frame(1), 0.0)
    assert take(stream, 0.0) == 1
    stream.receive(frame(2), 0.01)
    stream.receive(frame(3), 0.02)
    drop = only(stream.answered(1))
    assert (drop["from"], drop["to"], drop["reason"]) == (2, 2, "superseded")
    assert stream.result_fields() == {"ack": 2, "win": WINDOW_START, "dropped": 1}
    assert take(stream, 0.03) == 3


def test_adjoining_drops_are_told_as_one_range() -> None:
    stream = FlowControl(0)
    stream.receive(frame(1), 0.0)
    take(stream, 0.0)
    for seq in range(2, 8):
        assert stream.receive(frame(seq), 0.01 * seq) == []
    drop = only(stream.answered(1))
    assert (drop["from"], drop["to"]) == (2, 6)


def test_no_more_than_two_frames_of_a_stream_are_started() -> None:
    stream = FlowControl(0, mode="all")
    stream.window = 8
    for seq in range(1, 5):
        stream.receive(frame(seq), 0.0)
    for _ in range(MAX_STARTED):
        take(stream, 0.0)
    assert not stream.has_ready_frame(0.0)
    stream.answered(1)
    assert stream.has_ready_frame(0.0)


def test_a_live_frame_that_waited_too_long_is_stale() -> None:
    stream = FlowControl(0)
    stream.receive(frame(1), 0.0)
    waiting, messages = stream.take(0.6, 0.5)
    assert waiting is None
    drop = only(messages)
    assert (drop["type"], drop["reason"], drop["ack"]) == ("drop", "stale", 1)


def test_mode_all_drops_nothing_for_its_age() -> None:
    stream = FlowControl(0, mode="all")
    stream.receive(frame(1), 0.0)
    waiting, messages = stream.take(60.0, 0.5)
    assert waiting is not None
    assert messages == []


def test_ack_stops_before_the_first_frame_without_outcome() -> None:
    stream = FlowControl(0, mode="all")
    stream.window = 8
    for seq in (1, 2, 3):
        stream.receive(frame(seq), 0.0)
    take(stream, 0.0)
    take(stream, 0.0)
    stream.answered(2)
    assert stream.ack == 0
    stream.answered(1)
    assert stream.ack == 2


def test_ack_of_a_stream_that_starts_at_a_later_number_is_right_before_it() -> None:
    stream = FlowControl(0)
    stream.receive(frame(501), 0.0)
    assert stream.ack == 500


def test_a_number_that_does_not_rise_is_an_error_of_that_frame_alone() -> None:
    stream = FlowControl(0)
    stream.receive(frame(5), 0.0)
    error = only(stream.receive(frame(5), 0.0))
    assert (error["type"], error["code"], error["fatal"], error["seq"]) == ("error", "bad_seq", False, 5)
    assert (stream.ledger.received, stream.ledger.failed, stream.ledger.in_flight) == (2, 1, 1)


def test_encoded_video_in_an_image_stream_is_an_error_of_that_frame() -> None:
    stream = FlowControl(0)
    error = only(stream.receive(frame(1, Codec.H264), 0.0))
    assert (error["code"], error["seq"], error["ack"]) == ("unsupported_codec", 1, 1)
    assert stream.ledger.in_flight == 0


def test_mode_all_refuses_three_frames_past_the_window_then_gives_up() -> None:
    stream = FlowControl(0, mode="all")
    for seq in range(1, WINDOW_START + 1):
        assert stream.receive(frame(seq), 0.0) == []
    for extra in range(MAX_VIOLATIONS):
        messages = stream.receive(frame(WINDOW_START + 1 + extra), 0.0)
        assert [m["code"] for m in messages if m["type"] == "error"] == ["window"]
    with pytest.raises(WindowExceeded):
        stream.receive(frame(99), 0.0)


def test_a_steady_live_sender_that_ignores_the_window_is_served_newest_first() -> None:
    """At 200 fps into a device that runs 60, frames are superseded but none is an error."""
    stream = FlowControl(0)
    executing: int | None = None
    now, seq, busy_until = 0.0, 0, 0.0
    while now < 5.0:
        seq += 1
        assert not [m for m in stream.receive(frame(seq), now) if m["type"] == "error"]
        if executing is not None and now >= busy_until:
            stream.answered(executing)
            executing = None
        if executing is None and stream.has_ready_frame(now):
            executing, busy_until = take(stream, now), now + 1 / 60
        now += 1 / 200
    assert stream.ledger.dropped[DropReason.SUPERSEDED] > 500
    assert stream.ledger.inferred > 200


def test_a_live_burst_far_past_the_window_ends_the_connection() -> None:
    stream = FlowControl(0)
    stream.receive(frame(1), 0.0)
    take(stream, 0.0)
    with pytest.raises(WindowExceeded):
        for seq in range(2, WINDOW_START + OVERRUN_BURST + MAX_VIOLATIONS + 2):
            stream.receive(frame(seq), 0.0)


def test_frames_sent_before_a_hold_arrived_are_still_taken() -> None:
    stream = FlowControl(0, mode="all")
    stream.close_window(0.0, "restarting")
    assert stream.granted == 0
    assert stream.receive(frame(1), 0.05) == []
    assert stream.receive(frame(2), 0.05) == []
    flow = only(stream.reopen_window("ready"))
    assert (flow["type"], flow["win"], flow["reason"]) == ("flow", WINDOW_START, "ready")


@pytest.mark.parametrize(("mode", "limit"), [("live", WINDOW_MAX_LIVE), ("all", WINDOW_MAX_ALL)])
def test_the_window_grows_to_its_limit_while_the_device_waits_for_frames(mode: str, limit: int) -> None:
    stream = FlowControl(0, mode=mode)
    for seq in range(1, GROW_AFTER * 10 + 1):
        stream.receive(frame(seq), seq * 0.1)
        finish(stream, take(stream, seq * 0.1))
    assert stream.granted == limit


def test_the_window_shrinks_when_frames_are_superseded() -> None:
    stream = FlowControl(0)
    stream.window = WINDOW_MAX_LIVE
    for seq in range(1, 4):
        stream.receive(frame(seq), 0.0)
    assert stream.granted == WINDOW_MAX_LIVE - 2


def test_a_rate_limit_paces_and_names_itself_as_the_reason() -> None:
    stream = FlowControl(0)
    flow = only(stream.limit_rate(10.0, "overload"))
    assert (flow["max_fps"], flow["reason"]) == (10.0, "overload")
    for seq in (1, 2):
        stream.receive(frame(seq), 0.0)
        finish(stream, take(stream, 0.0))
    stream.receive(frame(3), 0.02)
    assert not stream.has_ready_frame(0.05)
    stream.receive(frame(4), 0.06)
    assert stream.has_ready_frame(0.11)
    assert stream.ledger.dropped == {DropReason.RATE: 1}


def test_a_camera_at_its_rate_does_not_wait_because_frames_come_a_little_early() -> None:
    stream = FlowControl(0)
    stream.limit_rate(5.0, "overload")
    for seq in range(1, 51):
        now = seq / 5.0 + (0.08 if seq % 2 else 0.0)
        stream.receive(frame(seq), now)
        assert stream.has_ready_frame(now)
        finish(stream, take(stream, now))


def test_a_rate_limit_holds_on_average() -> None:
    stream = FlowControl(0)
    stream.limit_rate(10.0, "overload")
    taken = 0
    for seq in range(1, 1001):
        now = seq / 100.0
        stream.receive(frame(seq), now)
        if stream.has_ready_frame(now):
            finish(stream, take(stream, now))
            taken += 1
    assert 100 <= taken <= 102


def test_an_undecodable_frame_is_told_at_once_with_its_reason_in_words() -> None:
    stream = FlowControl(0)
    stream.receive(frame(1), 0.0)
    take(stream, 0.0)
    drop = only(stream.dropped(1, DropReason.DECODE_ERROR, "the JPEG is truncated"))
    assert (drop["reason"], drop["message"], drop["ack"]) == ("decode_error", "the JPEG is truncated", 1)


def test_a_pause_drops_what_waits_and_resume_says_what_is_granted() -> None:
    stream = FlowControl(0)
    stream.receive(frame(1), 0.0)
    drop = only(stream.pause())
    assert (drop["reason"], drop["ack"]) == ("stale", 1)
    told = only(stream.receive(frame(2), 0.1))
    assert told["reason"] == "rate"
    flow = only(stream.resume())
    assert flow["win"] == WINDOW_START


def test_a_frame_sent_in_a_pause_is_told_together_with_drops_of_another_reason() -> None:
    stream = FlowControl(0)
    for seq in (1, 2):
        assert stream.receive(frame(seq), 0.0) == []
    assert take(stream, 0.0) == 2
    stream.pause()
    told: list[Any] = stream.receive(frame(3), 0.1)
    assert [(drop["from"], drop["reason"]) for drop in told] == [(1, "superseded"), (3, "rate")]


def test_resent_frames_that_were_answered_are_ignored_in_mode_all() -> None:
    stream = FlowControl(0, mode="all")
    stream.receive(frame(1), 0.0)
    finish(stream, take(stream, 0.0))
    assert stream.receive(frame(1), 1.0) == []
    assert stream.ledger.received == 1


actions = st.lists(
    st.tuples(
        st.sampled_from(["send", "take", "finish", "fail", "expire", "pause", "resume", "wait", "hold"]),
        st.integers(0, 3),
    ),
    max_size=120,
)


@given(actions, st.sampled_from(["live", "all"]))
def test_every_frame_has_exactly_one_outcome_whatever_happens(  # noqa: C901, PLR0912 - one machine, all its moves
    steps: list[tuple[str, int]], mode: str
) -> None:
    stream = FlowControl(0, mode=mode)
    now, seq = 0.0, 0
    started: list[int] = []
    sent: set[int] = set()
    outcomes: list[int] = []

    def note(messages: list[Any]) -> None:
        for message in messages:
            if message["type"] == "drop":
                outcomes.extend(range(message["from"], message["to"] + 1))
            elif message["type"] == "error":
                outcomes.append(message["seq"])

    for action, number in steps:
        if action == "send":
            seq += 1 + (number == 3)
            try:
                note(stream.receive(frame(seq), now))
            except WindowExceeded:
                sent.add(seq)  # the connection ends here and refuses its last frame
                outcomes.append(seq)
                break
            sent.add(seq)
        elif action == "take" and stream.has_ready_frame(now):
            waiting, messages = stream.take(now, 0.5)
            note(messages)
            if waiting is not None:
                started.append(waiting.frame.seq)
        elif action in ("finish", "fail", "expire") and started:
            done = started.pop(min(number, len(started) - 1))
            if action == "finish":
                note(stream.answered(done))
                outcomes.append(done)
            elif action == "fail":
                note(stream.failed(done, "inference_failed", "x"))
            else:
                note(stream.dropped(done, DropReason.STALE))
        elif action == "pause":
            note(stream.pause())
        elif action == "resume":
            note(stream.resume())
        elif action == "hold":
            note(stream.close_window(now, "x") + stream.reopen_window("y"))
        now += number * 0.1
        assert stream.ledger.in_flight >= 0
    note(stream.abandon())
    for done in started:
        note(stream.answered(done))
        outcomes.append(done)
    note(stream.take_drops())
    assert sorted(outcomes) == sorted(sent)
    assert stream.ledger.in_flight == 0
