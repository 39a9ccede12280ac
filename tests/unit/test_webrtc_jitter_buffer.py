"""The jitter buffer outputs whole frames, in order and in time, whatever the network does to the packets."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from streamer.imaging.turning import Turning
from streamer.webrtc.jitter_buffer import (
    CAPACITY,
    GAP_S,
    MAX_LATE,
    NACK_AT_S,
    EncodedFrame,
    Gap,
    JitterBuffer,
    RtpPayload,
)


def payloads_of(frame: int, count: int, first_seq: int, *, key: bool = False) -> list[RtpPayload]:
    """Return the packets of one frame; each holds its frame's number and its own place."""
    return [
        RtpPayload(
            (first_seq + place) & 0xFFFF,
            (frame * 3000) & 0xFFFFFFFF,
            place == count - 1,
            bytes((frame & 0xFF, place & 0xFF)),
            first=place == 0,
            key=key and place == 0,
        )
        for place in range(count)
    ]


def stream(frames: int, count: int, first_seq: int = 0) -> list[list[RtpPayload]]:
    return [payloads_of(n, count, first_seq + n * count, key=n == 0) for n in range(frames)]


def feed(buffer: JitterBuffer, payloads: list[RtpPayload], now: float = 0.0) -> list[EncodedFrame | Gap]:
    return [output for payload in payloads for output in buffer.add(payload, now)]


def test_a_frame_is_released_on_its_marker_and_not_with_the_next_frame() -> None:
    buffer = JitterBuffer()
    *most, last = payloads_of(1, 5, 100)
    assert feed(buffer, most) == []
    (frame,) = buffer.add(last, 7.0)
    assert frame == EncodedFrame(3000, b"".join(p.data for p in (*most, last)), 7.0)
    assert len(buffer) == 0


def test_a_frame_has_the_orientation_that_any_of_its_packets_states() -> None:
    """The last packet of a frame states the orientation here, as senders do it."""
    buffer = JitterBuffer()
    first, middle, last = payloads_of(1, 3, 100)
    feed(buffer, [first, middle])
    turning = Turning(mirrored=True, turns=3)
    (frame,) = buffer.add(replace(last, turning=turning), 0.0)
    assert isinstance(frame, EncodedFrame)
    assert frame.turning == turning
    (frame,) = feed(buffer, payloads_of(2, 2, 103))
    assert isinstance(frame, EncodedFrame)
    assert frame.turning is None


def test_without_marker_bits_a_frame_ends_where_the_next_begins() -> None:
    buffer = JitterBuffer()
    first = [RtpPayload(n, 100, last=False, data=b"a", first=n == 0) for n in range(3)]
    assert feed(buffer, first) == []
    (frame,) = buffer.add(RtpPayload(3, 200, last=False, data=b"b"), 0.0)
    assert isinstance(frame, EncodedFrame)
    assert (frame.rtp, frame.data) == (100, b"aaa")


def test_a_repaired_gap_releases_everything_behind_it_at_once() -> None:
    buffer = JitterBuffer()
    frames = stream(5, 1)
    feed(buffer, frames[0])
    lost = frames[1][0]
    for later in frames[2:]:
        assert feed(buffer, later, 0.05) == []
    assert [f.rtp for f in buffer.add(lost, 0.1) if isinstance(f, EncodedFrame)] == [3000, 6000, 9000, 12000]


def test_an_unrepaired_gap_is_skipped_after_its_time_and_said() -> None:
    buffer = JitterBuffer()
    frames = stream(4, 5)
    feed(buffer, frames[0])
    feed(buffer, frames[1][:2] + frames[1][3:], 1.0)
    assert buffer.to_nack(1.0 + NACK_AT_S[-1]) == [7]
    assert buffer.due == 1.0 + GAP_S
    assert feed(buffer, frames[2], 1.05) == []
    assert buffer.poll(1.0 + GAP_S - 0.001) == []
    outputs = buffer.poll(1.0 + GAP_S)
    assert outputs[0] == Gap()
    # The buffer discards the rest of the damaged frame and releases the frame behind it.
    assert [f.rtp for f in outputs[1:] if isinstance(f, EncodedFrame)] == [6000]
    assert buffer.due is None


def test_a_whole_key_frame_behind_a_gap_is_not_kept_waiting() -> None:
    buffer = JitterBuffer()
    feed(buffer, payloads_of(0, 2, 0, key=True))
    feed(buffer, payloads_of(1, 2, 2)[1:], 1.0)  # its first packet is lost
    outputs = feed(buffer, payloads_of(2, 3, 4, key=True), 1.01)
    assert outputs[0] == Gap()
    assert [f.rtp for f in outputs[1:] if isinstance(f, EncodedFrame)] == [6000]


def test_what_arrives_in_the_middle_of_a_frame_at_the_start_is_left_out() -> None:
    buffer = JitterBuffer()
    first, second = stream(2, 3)
    assert feed(buffer, first[1:]) == []
    assert [f.rtp for f in feed(buffer, second) if isinstance(f, EncodedFrame)] == [3000]


def test_the_first_packet_may_come_second() -> None:
    buffer = JitterBuffer()
    first, second, third = payloads_of(0, 3, 65535, key=True)
    assert feed(buffer, [second, third]) == []
    buffer = JitterBuffer()
    assert feed(buffer, [second]) == []
    (frame,) = feed(buffer, [first, third])
    assert isinstance(frame, EncodedFrame)
    assert frame.data == b"".join(payload.data for payload in (first, second, third))
    assert buffer.due is None


def test_missing_packets_are_asked_for_again_but_not_for_ever() -> None:
    buffer = JitterBuffer()
    feed(buffer, [RtpPayload(65534, 0, last=True, data=b"a", first=True)])
    feed(buffer, [RtpPayload(1, 9000, last=True, data=b"b")])
    assert buffer.to_nack(0.0) == [65535, 0]
    for before, at in pairwise(NACK_AT_S):
        assert buffer.due == at
        assert buffer.to_nack((before + at) / 2) == []
        assert buffer.to_nack(at) == [65535, 0]
    assert buffer.due == GAP_S
    assert buffer.to_nack(GAP_S) == []


def test_times_of_asking_that_were_missed_are_made_up_for_once() -> None:
    buffer = JitterBuffer()
    feed(buffer, [RtpPayload(1, 0, last=True, data=b"a", first=True)])
    feed(buffer, [RtpPayload(3, 9000, last=True, data=b"b")])
    assert buffer.to_nack(NACK_AT_S[2]) == [2]
    assert buffer.to_nack(NACK_AT_S[2]) == []
    feed(buffer, [RtpPayload(6, 18000, last=True, data=b"c")], 0.05)
    assert buffer.to_nack(0.05) == [4, 5]
    assert buffer.due == 0.05 + NACK_AT_S[1]


def test_a_key_frame_of_200_packets_passes() -> None:
    buffer = JitterBuffer()
    payloads = payloads_of(0, 200, 65500, key=True)
    (frame,) = feed(buffer, [payloads[0], *reversed(payloads[1:])])
    assert isinstance(frame, EncodedFrame)
    assert len(frame.data) == 400


def test_duplicates_and_padding_change_nothing() -> None:
    buffer = JitterBuffer()
    first, second = stream(2, 2)
    outputs = feed(buffer, [*first, *first, RtpPayload(2, 0, last=False, data=b"")])
    outputs += feed(buffer, [RtpPayload(p.seq + 1, p.rtp, p.last, p.data, first=p.first) for p in second])
    assert [f.rtp for f in outputs if isinstance(f, EncodedFrame)] == [0, 3000]


def test_a_sender_that_counts_anew_is_followed() -> None:
    buffer = JitterBuffer()
    feed(buffer, payloads_of(0, 1, 30_000))
    restarted = [payloads_of(n, 1, n)[0] for n in range(MAX_LATE + 5)]
    outputs = feed(buffer, restarted)
    assert outputs[0] == Gap()
    assert [f.rtp for f in outputs[1:] if isinstance(f, EncodedFrame)][-1] == (MAX_LATE + 4) * 3000


def test_memory_is_bounded_however_far_the_sender_jumps() -> None:
    buffer = JitterBuffer()
    feed(buffer, [RtpPayload(0, 0, last=True, data=b"x", first=True)])
    for n in range(5 * CAPACITY):
        buffer.add(RtpPayload((n + 2) & 0xFFFF, 3000, last=False, data=b"x"), 0.0)
        assert len(buffer) <= CAPACITY


fates = st.lists(
    st.tuples(st.booleans(), st.integers(0, 6), st.sampled_from([0.0, 0.01, 0.2])), min_size=10, max_size=60
)


@given(fates, st.integers(1, 5), st.sampled_from([0, 65_500]))
def test_whatever_is_lost_or_late_frames_come_out_whole_in_order_and_gaps_are_said(
    packets: list[tuple[bool, int, float]], count: int, first_seq: int
) -> None:
    frames = stream(len(packets) // count + 1, count, first_seq)
    sent = [payload for frame in frames for payload in frame]
    whole = {frame[0].rtp: b"".join(p.data for p in frame) for frame in frames}
    # The first frame arrives whole and opens the stream. Later packets are lost or delayed as drawn.
    order: list[tuple[int, RtpPayload]] = [(n, payload) for n, payload in enumerate(sent[:count])]
    for n, (payload, (lost, delay, _)) in enumerate(zip(sent[count:], packets, strict=False), count):
        if not lost:
            order.append((n + delay, payload))
    order.sort(key=lambda entry: entry[0])
    buffer, now = JitterBuffer(), 0.0
    outputs: list[EncodedFrame | Gap] = []
    for (_, payload), (_, _, pause) in zip(order, packets * 2, strict=False):
        now += pause
        outputs += buffer.add(payload, now)
    outputs += buffer.poll(now + 1.0)
    previous = -1
    gap = False
    for output in outputs:
        if isinstance(output, Gap):
            gap = True
            continue
        assert output.data == whole[output.rtp]
        number = output.rtp // 3000
        assert number > previous
        assert gap or number == previous + 1, "a frame is missing and no gap was said"
        previous, gap = number, False
    assert buffer.due is None
