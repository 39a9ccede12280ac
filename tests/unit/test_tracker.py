"""Ids stay with their objects through motion, crossing, occlusion and dropped frames."""

from __future__ import annotations

import itertools
import json

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.core.detections import NO_BOXES, Boxes
from streamer.streams import tracker as tracker_module
from streamer.streams.tracker import LOST_S, MAX_GAP_S, MAX_TRACKS, START_SCORE, Tracker

FRAME_US = 33_333


def box(
    x: float, y: float = 100.0, *, size: float = 80.0, score: float = 0.9, class_id: int = 0
) -> list[float]:
    return [x, y, x + size, y + size, score, float(class_id)]


def boxes(*rows: list[float]) -> Boxes:
    return np.array(rows, dtype=np.float32).reshape(-1, 6)


def ids(result: npt.NDArray[np.float32]) -> list[int]:
    return [int(value) for value in result[:, 6]]


def test_the_first_object_is_number_one_and_keeps_its_number() -> None:
    tracker = Tracker()
    for frame in range(30):
        assert ids(tracker.update(boxes(box(100 + 6 * frame)), frame * FRAME_US)) == [1]


def test_rows_keep_their_order_and_values() -> None:
    tracker = Tracker()
    given_rows = boxes(box(0), box(300), box(600))
    assert ids(tracker.update(given_rows, 0)) == [1, 2, 3]
    swapped = given_rows[[2, 0, 1]]
    result = tracker.update(swapped, FRAME_US)
    assert ids(result) == [3, 1, 2]
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result[:, :6], swapped)


def test_no_boxes_give_no_rows() -> None:
    result = Tracker().update(NO_BOXES, 0)
    assert result.shape == (0, 7)


@pytest.mark.parametrize("gap", [1, 2, 5])
def test_two_objects_that_cross_keep_their_ids(gap: int) -> None:
    """Ids are kept when only every ``gap``-th frame arrives and the order of the rows alternates."""
    tracker = Tracker()
    for number, frame in enumerate(range(0, 80, gap)):
        # The second box is 30 px further down, so their IoU is 0.45 when they pass each other.
        pair = boxes(box(100 + 8 * frame), box(740 - 8 * frame, 130))
        if number % 2:
            assert ids(tracker.update(pair[::-1], frame * FRAME_US)) == [2, 1]
        else:
            assert ids(tracker.update(pair, frame * FRAME_US)) == [1, 2]


@pytest.mark.parametrize("gap", [1, 3, 7])
def test_an_object_behind_a_pillar_returns_under_its_id(gap: int) -> None:
    tracker = Tracker()
    seen = []
    for frame in range(0, 70, gap):
        hidden = 25 <= frame < 45
        frame_boxes = NO_BOXES if hidden else boxes(box(50 + 9 * frame))
        seen += ids(tracker.update(frame_boxes, frame * FRAME_US))
    assert set(seen) == {1}


def test_speed_is_per_second_not_per_frame() -> None:
    """At 900 px/s an 80 px box leaves its last place within 3 frames, so only its speed can match it."""
    tracker = Tracker()
    times_s = [0.0, 0.03, 0.06, 0.09, 0.30, 0.33, 0.70]
    result = [ids(tracker.update(boxes(box(900 * t)), int(t * 1e6))) for t in times_s]
    assert result == [[1]] * len(times_s)


def test_a_doubtful_box_continues_a_track_but_begins_none() -> None:
    tracker = Tracker()
    low = START_SCORE - 0.1
    assert ids(tracker.update(boxes(box(0, score=low)), 0)) == [0]
    assert ids(tracker.update(boxes(box(0)), FRAME_US)) == [1]
    assert ids(tracker.update(boxes(box(4, score=low), box(400, score=low)), 2 * FRAME_US)) == [1, 0]


def test_a_confident_box_chooses_before_a_doubtful_one_that_fits_better() -> None:
    tracker = Tracker()
    tracker.update(boxes(box(0)), 0)
    result = tracker.update(boxes(box(0, score=START_SCORE - 0.1), box(10)), FRAME_US)
    assert ids(result) == [0, 1]


def test_classes_are_tracked_apart() -> None:
    tracker = Tracker()
    tracker.update(boxes(box(0, class_id=1)), 0)
    assert ids(tracker.update(boxes(box(0, class_id=2)), FRAME_US)) == [2]


def test_a_lost_object_is_forgotten_after_its_time() -> None:
    tracker = Tracker()
    tracker.update(boxes(box(0)), 0)
    tracker.update(NO_BOXES, FRAME_US)
    tracker.update(NO_BOXES, int(LOST_S * 1e6) + 1)
    assert len(tracker) == 0
    assert ids(tracker.update(boxes(box(0)), int(LOST_S * 1e6) + FRAME_US)) == [2]


@pytest.mark.parametrize(("gap_s", "expected"), [(LOST_S * 1.5, 1), (MAX_GAP_S + 0.1, 2)])
def test_a_slow_stream_keeps_ids_but_a_long_pause_does_not(gap_s: float, expected: int) -> None:
    tracker = Tracker()
    tracker.update(boxes(box(0)), 0)
    assert ids(tracker.update(boxes(box(0)), int(gap_s * 1e6))) == [expected]


def test_a_clock_that_goes_back_counts_as_no_time() -> None:
    tracker = Tracker()
    tracker.update(boxes(box(0)), (1 << 64) - 1)
    assert ids(tracker.update(boxes(box(3)), 0)) == [1]
    assert ids(tracker.update(boxes(box(6)), FRAME_US)) == [1]


def test_reset_forgets_objects_but_never_reuses_an_id() -> None:
    tracker = Tracker()
    tracker.update(boxes(box(0)), 0)
    tracker.reset()
    assert len(tracker) == 0
    assert ids(tracker.update(boxes(box(0)), FRAME_US)) == [2]


def test_memory_is_bounded_and_the_longest_unseen_give_way() -> None:
    tracker = Tracker()
    old, new = 700, 600
    tracker.update(boxes(*(box(100.0 * n, 0) for n in range(old))), 0)
    result = ids(tracker.update(boxes(*(box(100.0 * n, 5000) for n in range(new))), FRAME_US))
    assert len(tracker) == MAX_TRACKS
    assert result == list(range(old + 1, old + new + 1))
    crowd = ids(tracker.update(boxes(*(box(100.0 * n, 9000) for n in range(MAX_TRACKS + 50))), 2 * FRAME_US))
    assert len(tracker) == MAX_TRACKS
    assert crowd.count(0) == 50


def test_ids_begin_again_where_float32_would_lose_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker_module, "MAX_TRACK_ID", 3)
    tracker = Tracker()
    assert ids(tracker.update(boxes(box(0), box(200), box(400), box(600)), 0)) == [1, 2, 3, 1]


coordinates = st.floats(0, 2000, width=32)


@st.composite
def frames(draw: st.DrawFn) -> list[tuple[Boxes, int]]:
    row = st.tuples(
        coordinates, coordinates, coordinates, coordinates, st.floats(0, 1, width=32), st.integers(0, 2)
    )
    stream = []
    for _ in range(draw(st.integers(1, 6))):
        rows = [
            [min(a, c), min(b, d), max(a, c), max(b, d), s, k]
            for a, b, c, d, s, k in draw(st.lists(row, max_size=12))
        ]
        stream.append((boxes(*rows), draw(st.integers(0, 5_000_000))))
    return stream


@given(frames())
def test_every_frame_keeps_its_rows_and_gives_an_id_to_one_row_at_most(
    stream: list[tuple[Boxes, int]],
) -> None:
    tracker = Tracker()
    class_of: dict[int, float] = {}
    for frame_boxes, ts_us in stream:
        result = tracker.update(frame_boxes, ts_us)
        np.testing.assert_array_equal(result[:, :6], frame_boxes)
        given_ids = [value for value in ids(result) if value]
        assert len(given_ids) == len(set(given_ids))
        for row in result:
            assert row[6] > 0 or row[4] < START_SCORE
            if row[6]:
                assert class_of.setdefault(int(row[6]), row[5]) == row[5]


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12, unique=True),
    st.tuples(st.floats(-8, 8), st.floats(-8, 8)),
    st.lists(st.integers(1, 4), min_size=3, max_size=15),
)
def test_a_moving_crowd_keeps_its_ids_whatever_frames_are_dropped_and_however_rows_are_ordered(
    cells: list[tuple[int, int]], step: tuple[float, float], gaps: list[int]
) -> None:
    tracker = Tracker()
    expected: dict[tuple[int, int], int] = {}
    for frame in itertools.accumulate(gaps):
        shuffled = sorted(cells, key=lambda cell: hash((cell, frame)))
        rows = [box(cell[0] * 200 + step[0] * frame, cell[1] * 200 + step[1] * frame) for cell in shuffled]
        result = ids(tracker.update(boxes(*rows), frame * FRAME_US))
        for cell, track_id in zip(shuffled, result, strict=True):
            assert expected.setdefault(cell, track_id) == track_id


def test_a_tracker_goes_on_in_another_process() -> None:
    here, there = Tracker(), Tracker()
    rng = np.random.default_rng(5)
    for step in range(40):
        corner = rng.uniform(0, 400, (5, 2)).round(1)
        rows = np.hstack((corner, corner + 50, rng.uniform(0.1, 0.9, (5, 1)), rng.integers(0, 2, (5, 1))))
        boxes = rows.astype(np.float32)
        expected = here.update(boxes, step * 40_000)
        there = Tracker.from_state(json.loads(json.dumps(there.to_state())))
        assert np.array_equal(there.update(boxes, step * 40_000), expected)


@pytest.mark.parametrize("change", [{"ids": [1] * 2000}, {"places": [[1, 2, 3]]}, {"clock_s": None}])
def test_a_state_of_another_form_is_refused(change: dict[str, object]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        Tracker.from_state(Tracker().to_state() | change)
