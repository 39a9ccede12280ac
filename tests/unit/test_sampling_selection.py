"""Selection turns the right candidates into samples, and applies its rules in the right order."""

from __future__ import annotations

import dataclasses
import math
import random
from typing import Any

import msgpack
import numpy as np
import pytest

from streamer.sampling import selection as module
from streamer.sampling.appearance import Appearance
from streamer.sampling.appearance_memory import RADIUS
from streamer.sampling.candidate import ENCODED, SampleCandidate, ShadowResult
from streamer.sampling.policy import Policy
from streamer.sampling.selection import Choice, Selection
from tests.helpers.candidates import boxes, candidate, look

T0 = 1_800_000_000.0


def quiet(**rules: float) -> Policy:
    """Return a policy without random samples and with ample budgets."""
    return Policy(**({"random_every_s": 0.0, "stream_per_hour": 3600, "per_hour": 3600} | rules))  # type: ignore[arg-type]


class SelectionRun:
    """Runs a selection, with capture time and monotonic time in step, and counts the decoded images."""

    def __init__(self, policy: Policy) -> None:
        self.selection = Selection(policy, random.Random(2))
        self.decoded = 0

    def consider(
        self,
        now: float,
        *scores: float,
        shown: int = 0,
        objects: tuple[int, ...] = (),
        drifting: bool = False,
        **fields: Any,
    ) -> list[Choice]:
        def count() -> Appearance:
            self.decoded += 1
            return look(shown, *objects)

        found = candidate(*scores, at=T0 + now, **fields)
        return self.selection.consider(found, now, count, drifting=drifting)


def seqs(choices: list[Choice]) -> list[int]:
    return [choice.candidate.seq for choice in choices]


def test_the_best_of_an_interval_is_taken_at_its_end() -> None:
    run = SelectionRun(quiet(interval_s=60))
    assert run.consider(0, 0.6, seq=1) == []
    assert run.consider(1, 0.52, seq=2, shown=1) == []
    assert run.consider(2, 0.62, seq=3) == []
    assert run.selection.due(59.0) == []
    (choice,) = run.selection.due(60.0)
    assert (choice.candidate.seq, choice.reasons) == (2, ("uncertainty",))
    assert choice.uncertainty == pytest.approx(0.96, abs=1e-3)
    assert run.selection.due(120.0) == []


def test_a_stream_in_drift_is_sampled_whatever_the_model_thinks_within_the_rules() -> None:
    run = SelectionRun(quiet(interval_s=60, stream_per_hour=2))
    assert run.consider(0, 0.99) == []
    assert run.selection.due(60) == []
    taken = []
    for minute in range(1, 5):
        run.consider(minute * 100.0, seq=minute, shown=minute, drifting=True)
        taken += run.selection.due(minute * 100.0 + 60)
    assert [choice.reasons for choice in taken] == [("drift",)] * 2
    assert run.selection.dropped["budget"] == 2
    run = SelectionRun(quiet(interval_s=0))
    run.consider(0, 0.55, drifting=True)
    assert run.selection.due(1)[0].reasons == ("drift", "uncertainty")


def test_what_cannot_win_is_never_decoded() -> None:
    run = SelectionRun(quiet())
    run.consider(0, 0.95)
    assert run.decoded == 0
    run.consider(1, 0.5)
    run.consider(2, 0.6)
    assert run.decoded == 1


def test_samples_of_a_stream_keep_their_distance_in_time() -> None:
    run = SelectionRun(quiet(interval_s=0, spacing_s=10))
    run.consider(0, 0.5, seq=1, shown=0)
    assert seqs(run.selection.due(0.0)) == [1]
    run.consider(9, 0.5, seq=2, shown=1)
    assert run.selection.due(9.0) == []
    run.consider(10, 0.5, seq=3, shown=2)
    assert seqs(run.selection.due(10.0)) == [3]


def test_a_frame_that_shows_nothing_new_is_dropped() -> None:
    run = SelectionRun(quiet(interval_s=0, spacing_s=0))
    run.consider(0, 0.5, shown=1, objects=(11, 12))
    (first,) = run.selection.due(0.0)
    assert first.novelty == math.inf
    # The same objects before another background, each and both.
    for now, known in ((20, (11, 12)), (40, (12,))):
        run.consider(now, 0.5, shown=now, objects=known)
        assert run.selection.due(now) == []
    assert run.selection.dropped == {"duplicate": 2}
    run.consider(60, 0.5, shown=1, objects=(11, 13))
    (new,) = run.selection.due(60.0)
    assert RADIUS < new.novelty < math.inf
    run.consider(80, 0.5, shown=1, objects=(11,), stream="other")
    assert len(run.selection.due(80.0)) == 1, "each stream has its own memory"
    # Without objects, and in drift, the frame as a whole counts.
    for now, shown, described, drifting, expected in (
        (100, 1, (), True, 0),
        (120, 5, (), True, 1),
        (140, 6, (11,), False, 0),
        (160, 6, (11,), True, 1),
    ):
        run.consider(now, 0.5, shown=shown, objects=described, drifting=drifting)
        assert len(run.selection.due(now)) == expected, now


def test_a_rare_class_needs_to_be_less_new() -> None:
    taken = {}
    for label in (0, 1):
        run = SelectionRun(quiet(interval_s=0, spacing_s=0))
        # Many samples of class 0, and one of class 1.
        for index in range(12):
            found = boxes(0.5, label=index == 11)
            run.consider(index, boxes=found, shown=0, objects=(index,))
            run.selection.due(index)
        nearly = look(0, 3)
        (crop,) = nearly.objects
        # This is some 3.5 levels from the object of number 3, between half of the radius and the radius.
        crop = dataclasses.replace(crop, colour=crop.colour + np.float32(4.5))
        nearly = dataclasses.replace(nearly, objects=(crop,))
        following = candidate(at=T0 + 100, boxes=boxes(0.5, label=label))
        run.selection.consider(following, 100, iter((nearly,)).__next__)
        taken[label] = len(run.selection.due(100))
    assert taken == {0: 0, 1: 1}


def test_a_rare_class_wins_an_interval_also_after_a_restart() -> None:
    first = SelectionRun(quiet(interval_s=0, spacing_s=0))
    for index in range(12):
        first.consider(index, boxes=boxes(0.5), shown=index, objects=(index,))
        first.selection.due(index)
    second = SelectionRun(quiet(interval_s=60))
    second.selection.restore(msgpack.unpackb(msgpack.packb(first.selection.state(20, T0))), 20, T0)
    # The frequent class is a little more uncertain, and comes first and last.
    for seq, score, label in ((1, 0.51, 0), (2, 0.54, 1), (3, 0.51, 0)):
        second.consider(20 + seq, boxes=boxes(score, label=label), shown=seq, objects=(seq,), seq=seq)
    assert seqs(second.selection.due(90)) == [2]


def test_objects_that_cover_something_new_are_taken_and_those_between_known_ones_are_not() -> None:
    run = SelectionRun(quiet(interval_s=0, spacing_s=0))
    (start,) = look(0, 1).objects
    steps = [0, 40, 80, 20, 42, 78, 120, 1]
    taken = []
    for seq, step in enumerate(steps):
        shown = dataclasses.replace(
            look(0), objects=(dataclasses.replace(start, colour=start.colour + step),)
        )
        run.selection.consider(candidate(0.5, at=T0 + seq, seq=seq), seq, iter((shown,)).__next__)
        taken += seqs(run.selection.due(seq))
    assert [steps[seq] for seq in taken] == [0, 40, 80, 20, 120]


def test_a_person_comes_first_and_passes_everything_but_a_budget_of_reports() -> None:
    run = SelectionRun(quiet(threshold=2, stream_per_hour=0, reports_per_hour=8))
    for now, expected in ((0, 1), (1, 1), (2, 0)):
        assert len(run.consider(now, 0.99, reported=True)) == expected
    assert run.selection.dropped == {"report_budget": 1}
    run = SelectionRun(quiet())
    (choice,) = run.consider(0, 0.5, reported=True)
    assert choice.reasons == ("user", "uncertainty")


def test_flicker_is_a_reason_of_its_own() -> None:
    run = SelectionRun(quiet(interval_s=0))
    run.consider(0, 0.95, before=boxes(), after=boxes())
    (choice,) = run.selection.due(0.0)
    assert (choice.reasons, choice.components["flicker"]) == (("flicker",), 1.0)


def test_disagreement_of_two_models_is_a_reason_of_its_own() -> None:
    run = SelectionRun(quiet(interval_s=0))
    for label, expected in ((0, 0), (1, 1)):
        shadow = ShadowResult("v2", "small", "", boxes(0.95, label=label))
        run.consider(0, 0.95, shadow=shadow)
        taken = run.selection.due(0.0)
        assert len(taken) == expected
    assert taken[0].reasons == ("disagreement",)


def test_boxes_under_the_callers_threshold_do_not_flicker() -> None:
    run = SelectionRun(quiet(interval_s=0))
    run.consider(0, 0.3, before=boxes(), after=boxes())
    assert run.selection.due(0.0) == []


@pytest.mark.parametrize(("threshold", "taken"), [(0.0, 1), (0.7, 0), (1.01, 0)])
def test_the_threshold_goes_from_everything_to_nothing(threshold: float, taken: int) -> None:
    run = SelectionRun(quiet(threshold=threshold, interval_s=0))
    run.consider(0, 0.99)
    assert len(run.selection.due(0.0)) == taken
    run = SelectionRun(quiet(threshold=1.01, interval_s=0))
    run.consider(0, 0.5)
    assert run.selection.due(0.0) == []


@pytest.mark.parametrize("fps", [0.3, 0.1])
def test_random_frames_come_at_their_rate_whatever_that_of_the_frames(fps: float) -> None:
    run = SelectionRun(quiet(threshold=2, random_every_s=1800))
    hours = 20
    taken = [
        choice
        for index in range(int(hours * 3600 * fps))
        for choice in run.consider(index / fps, 0.99, data=b"")
    ]
    assert 20 <= len(taken) <= 60  # 40 expected, standard deviation 6
    assert all(choice.reasons == ("random",) for choice in taken)
    assert taken[0].probability == pytest.approx(1 / fps / 1800, rel=0.01)


def test_what_is_held_is_kept_at_the_end() -> None:
    run = SelectionRun(quiet())
    run.consider(0, 0.5, seq=1)
    run.consider(0, 0.5, seq=2, stream="other")
    assert sorted(seqs(run.selection.flush(1.0))) == [1, 2]
    assert run.selection.flush(1.0) == []


def test_held_images_are_bounded_and_the_oldest_is_taken_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_HELD_BYTES", 250)
    run = SelectionRun(quiet())
    taken: list[Choice] = []
    for index in range(4):
        taken += run.consider(index, 0.5, stream=f"s{index}", seq=index, data=b"x" * 100)
    assert seqs(taken) == [0, 1]


def test_the_stream_unheard_for_longest_gives_way_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_STREAMS", 2)
    run = SelectionRun(quiet())
    taken: list[Choice] = []
    for index in range(4):
        taken += run.consider(index, 0.5, stream=f"s{index}", seq=index)
    assert seqs(taken) == [0, 1]


def test_pixels_are_encoded_when_they_are_held_or_taken_and_only_then() -> None:
    encoded: list[int] = []

    def encode(found: SampleCandidate) -> SampleCandidate:
        encoded.append(found.seq)
        return dataclasses.replace(found, data=b"small", source=ENCODED)

    selection = Selection(quiet(interval_s=60, day_bytes=5), random.Random(2), encode)
    for now, score in ((0, 0.6), (1, 0.52), (2, 0.62)):
        found = candidate(score, at=T0 + now, seq=now, data=b"large" * 100)
        assert selection.consider(found, now, iter((look(now),)).__next__) == []
    # The budget counts the encoded bytes, and has room for one encoded image.
    (choice,) = selection.due(60.0)
    assert (choice.candidate.seq, choice.candidate.data, choice.candidate.source) == (1, b"small", ENCODED)
    assert set(encoded) == {0, 1}
