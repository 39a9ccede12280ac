"""The sampler decides which frames become candidates, with which neighbours, and what a person can report."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.core.detection_params import DetectionParams
from streamer.sampling.candidate import SampleCandidate, ShadowResult, slug
from streamer.sampling.reports import ReportOutcome
from streamer.sampling.sampler import Observation, Sampler, boxes_above, low_threshold, with_low_threshold
from tests.helpers.candidates import STREAM, boxes

SHADOW = ShadowResult("v2", "small", "cd" * 32, boxes(0.6))


def observation(seq: int, at: float, *scores: float) -> Observation:
    return Observation(b"jpeg", seq, 0, at, 1000.0 + at, 160, 96, DetectionParams(0.5), boxes(*scores))


@pytest.fixture
def taken() -> list[SampleCandidate]:
    return []


@pytest.fixture
def sampler(taken: list[SampleCandidate]) -> Sampler:
    return Sampler(STREAM, into(taken), 0.0, report_into(taken))


def into(taken: list[SampleCandidate]) -> Callable[[SampleCandidate], bool]:
    """Return a function that accepts submitted candidates and keeps them in a list."""

    def submit(candidate: SampleCandidate) -> bool:
        taken.append(candidate)
        return True

    return submit


def report_into(
    taken: list[SampleCandidate],
) -> Callable[[SampleCandidate, Callable[[ReportOutcome], None]], None]:
    """Return a function that takes reports, keeps them in a list, and answers at once."""

    def start(candidate: SampleCandidate, answer: Callable[[ReportOutcome], None]) -> None:
        taken.append(candidate)
        answer(ReportOutcome(taken=True, sample="kept"))

    return start


def never(_candidate: SampleCandidate, _answer: Callable[[ReportOutcome], None]) -> None:
    raise AssertionError("nothing is reported here")


def test_one_frame_a_second_is_wanted(sampler: Sampler) -> None:
    wanted = [sampler.wants(index / 30) for index in range(300)]
    assert wanted[0]
    assert 8 <= sum(wanted) <= 13


def test_a_candidate_has_the_boxes_of_the_frames_around_it(
    sampler: Sampler, taken: list[SampleCandidate]
) -> None:
    sampler.add(observation(1, 0.0, 0.9), None)
    sampler.add(observation(2, 0.1, 0.8), boxes(0.8, 0.3))
    assert taken == []
    sampler.add(observation(3, 0.2, 0.7), None)
    (candidate,) = taken
    assert (candidate.seq, candidate.captured_at, candidate.low_threshold) == (2, 1000.1, 0.25)
    assert candidate.boxes[:, 4].tolist() == pytest.approx([0.8, 0.3])
    assert candidate.before is not None
    assert candidate.after is not None
    assert (candidate.before[0, 4], candidate.after[0, 4]) == (np.float32(0.9), np.float32(0.7))


def test_frames_far_away_are_no_neighbours(sampler: Sampler, taken: list[SampleCandidate]) -> None:
    sampler.add(observation(1, 0.0, 0.9), None)
    sampler.add(observation(2, 0.6, 0.8), boxes(0.8))
    sampler.add(observation(3, 1.2, 0.7), None)
    assert (taken[0].before, taken[0].after) == (None, None)


def test_the_last_candidate_of_a_stream_is_not_lost(sampler: Sampler, taken: list[SampleCandidate]) -> None:
    sampler.add(observation(1, 0.0), boxes(0.8))
    sampler.close()
    assert [candidate.seq for candidate in taken] == [1]
    sampler.close()
    assert len(taken) == 1


def test_a_person_gets_the_last_finished_frame(sampler: Sampler, taken: list[SampleCandidate]) -> None:
    answers: list[tuple[int, ReportOutcome]] = []

    def answer(seq: int, outcome: ReportOutcome) -> None:
        answers.append((seq, outcome))

    assert not sampler.report("", answer)
    assert answers == []
    sampler.add(observation(4, 0.0, 0.9), None)
    assert sampler.report("a cat, not a dog", answer)
    assert answers == [(4, ReportOutcome(taken=True, sample="kept"))]
    assert (taken[0].reported, taken[0].note, taken[0].low_threshold) == (True, "a cat, not a dog", 0.5)


def test_still_images_have_no_neighbours_and_are_not_remembered(taken: list[SampleCandidate]) -> None:
    sampler = Sampler(STREAM, into(taken), 0.0, never, unrelated=True)
    sampler.add(observation(0, 0.0, 0.9), None)
    sampler.add(observation(0, 0.1, 0.8), boxes(0.8, 0.3))
    assert len(taken) == 1
    assert taken[0].before is None
    assert not sampler.report("", lambda _seq, _outcome: None)


class ShadowRuns:
    """Starts shadow runs, which end when the test calls their callback."""

    def __init__(self, *, begins: bool = True) -> None:
        self.begins = begins
        self.callbacks: list[Callable[[ShadowResult | None], None]] = []

    def __call__(self, _shot: Observation, done: Callable[[ShadowResult | None], None]) -> bool:
        if self.begins:
            self.callbacks.append(done)
        return self.begins


@pytest.mark.parametrize("frame_first", [True, False])
def test_a_candidate_waits_for_the_next_frame_and_for_the_other_model(
    taken: list[SampleCandidate], frame_first: bool
) -> None:
    runs = ShadowRuns()
    sampler = Sampler(STREAM, into(taken), 0.0, never, start_shadow_run=runs)
    sampler.add(observation(1, 0.0), boxes(0.8))
    steps: list[Callable[[], None]] = [
        lambda: sampler.add(observation(2, 0.1), None),
        lambda: runs.callbacks[0](SHADOW),
    ]
    for step in steps if frame_first else reversed(steps):
        assert taken == []
        step()
    (candidate,) = taken
    assert candidate.shadow is SHADOW
    assert candidate.after is not None


def test_a_model_that_never_answers_delays_a_candidate_until_the_next_one(
    taken: list[SampleCandidate],
) -> None:
    runs = ShadowRuns()
    sampler = Sampler(STREAM, into(taken), 0.0, never, unrelated=True, start_shadow_run=runs)
    sampler.add(observation(1, 0.0), boxes(0.8))
    assert taken == []
    sampler.add(observation(2, 1.0), boxes(0.8))
    assert [c.seq for c in taken] == [1]
    runs.callbacks[0](SHADOW)  # too late: the candidate is not submitted a second time
    runs.callbacks[1](None)
    assert [(c.seq, c.shadow) for c in taken] == [(1, None), (2, None)]


def test_where_no_other_model_looks_nothing_waits(taken: list[SampleCandidate]) -> None:
    runs = ShadowRuns(begins=False)
    sampler = Sampler(STREAM, into(taken), 0.0, never, unrelated=True, start_shadow_run=runs)
    sampler.add(observation(1, 0.0), boxes(0.8))
    assert len(taken) == 1


@given(st.floats(0, 1, width=32), st.lists(st.floats(0, 1, width=32), max_size=20))
def test_the_callers_boxes_are_those_over_its_threshold(threshold: float, scores: list[float]) -> None:
    assert low_threshold(threshold) <= threshold
    params = with_low_threshold(DetectionParams(threshold, max_detections=5))
    assert (params.conf_threshold, params.max_detections) == (low_threshold(threshold), 5)
    found = boxes(*sorted((s for s in scores if s >= params.conf_threshold), reverse=True))
    assert boxes_above(found, threshold)[:, 4].tolist() == [s for s in found[:, 4].tolist() if s >= threshold]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Gate 3", "gate-3"),
        ("../../etc/passwd", "etc-passwd"),
        ("", "unnamed"),
        ("日本", "unnamed"),
        ("a" * 90, "a" * 64),
    ],
)
def test_names_are_made_fit_for_keys(name: str, expected: str) -> None:
    assert slug(name) == expected


@given(st.text())
def test_a_slug_is_always_fit_for_a_key(name: str) -> None:
    found = slug(name)
    assert 1 <= len(found) <= 64
    assert set(found) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert slug(found) == found
