"""Random samples come at their rate beside any load, and estimates from them are unbiased.

The seeds are fixed, and tolerances are multiples of the standard error.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from streamer.sampling import random_schedule
from streamer.sampling.policy import Policy
from streamer.sampling.random_schedule import RandomSchedule
from streamer.sampling.selection import Choice, Selection
from streamer.sampling.selection_file import SelectionFile
from tests.helpers.candidates import candidate, look

T0 = 1_800_000_000.0
HOURS = 100
#: Frames of the loads below: stream, seconds since T0, and score of the only box (threshold 0.5).
Frames = Iterator[tuple[str, float, float]]


def steady(every_s: float, score: float, streams: int = 1) -> Frames:
    for index in range(int(HOURS * 3600 / every_s)):
        for number in range(streams):
            yield f"s{number}", index * every_s + number / streams, score


def bursts() -> Frames:
    """Yield ten minutes of frames in each hour."""
    for time_s in range(0, HOURS * 3600, 20):
        if time_s % 3600 < 600:
            yield "s0", float(time_s), 0.5


LOADS: dict[str, tuple[Callable[[], Frames], float]] = {
    "sure stream": (lambda: steady(40, 0.99), 200),
    "unsure stream": (lambda: steady(60, 0.5), 200),
    "30 unsure streams": (lambda: steady(900, 0.5, streams=30), 6000),
    "a frame in 10 minutes": (lambda: steady(600, 0.5), 200),
    "a frame in 25 minutes": (lambda: steady(1500, 0.5), 200),
    "ten minutes in each hour": (bursts, 200),
}


def select(seed: int, frames: Frames, restart_s: float = math.inf, looks: int = 4) -> list[Choice]:
    """Return all samples of these frames, each with one of ``looks`` images in turn.

    The process restarts every ``restart_s``, and then knows only its schedule and budgets.
    """
    rng = random.Random(seed)
    selection = Selection(Policy(), rng)
    shown = [look(number) for number in range(looks)]
    taken: list[Choice] = []
    restart_at = restart_s
    for seq, (stream, at, score) in enumerate(frames):
        found = candidate(score, stream=stream, at=T0 + at, seq=seq, data=b"image")
        taken += selection.consider(found, at, lambda seq=seq: shown[seq % looks])  # type: ignore[misc]
        taken += selection.due(at)
        if at >= restart_at:
            restart_at = at + restart_s
            state = msgpack.unpackb(msgpack.packb(selection.state(at, T0 + at)))
            selection = Selection(Policy(), rng)
            selection.restore(state, at, T0 + at)
    return taken


def drawn(taken: list[Choice]) -> int:
    return sum(choice.reasons[0] == "random" for choice in taken)


@pytest.mark.parametrize("load", LOADS)
def test_random_samples_come_at_the_promised_rate_beside_any_load(load: str) -> None:
    frames, expected = LOADS[load]
    taken = select(3, frames())
    # Chromy's method leaves no more than one sample of a stream to chance.
    assert drawn(taken) == pytest.approx(expected, rel=0.02)
    if "unsure stream" in load:
        assert len(taken) > drawn(taken), "other samples come, too"


def test_restarts_neither_add_nor_cost_random_samples_nor_refill_budgets() -> None:
    taken = select(3, steady(60, 0.5), restart_s=500)
    assert drawn(taken) == pytest.approx(200, abs=2)
    # Each process may keep four new images, 2,880 in all, but the budgets of the first one continue.
    assert 1500 < len(taken) - drawn(taken) <= 20 * HOURS + 3


def draws(seed: int, gaps_s: list[float], sizes: list[float], day_bytes: int) -> tuple[Any, Any]:
    """Return which candidates are drawn, and their probabilities; half of the draws are after a restart."""
    rng = random.Random(seed)
    schedule = RandomSchedule(1800, day_bytes, rng)
    hits, probabilities, at = [], [], T0
    for index, (gap_s, size) in enumerate(zip(gaps_s, sizes, strict=True)):
        at += gap_s
        hit, probability = schedule.draw("s", at, size)
        hits.append(hit)
        probabilities.append(probability)
        if index == len(gaps_s) // 2:
            state, schedule = schedule.state(), RandomSchedule(1800, day_bytes, rng)
            schedule.restore(msgpack.unpackb(msgpack.packb(state)))
    return np.array(hits), np.array(probabilities)


@pytest.mark.parametrize("day_bytes", [1 << 40, 20_000])
def test_each_candidate_is_drawn_with_exactly_the_probability_that_its_sample_states(day_bytes: int) -> None:
    rng = np.random.default_rng(8)
    gaps_s = [0.0, *rng.choice([1.0, 90.0, 700.0, 1500.0, 4000.0], 24).tolist()]
    sizes = rng.uniform(100, 5000, 25).tolist()
    runs = [draws(seed, gaps_s, sizes, day_bytes) for seed in range(2000)]
    probabilities = runs[0][1]
    assert all(np.array_equal(found, probabilities) for _, found in runs), "they are known in advance"
    if day_bytes == 20_000:
        assert 0 < probabilities[-5:].max() < 0.5, "the budget of bytes makes samples rarer"
    frequencies = np.mean([hits for hits, _ in runs], axis=0)
    errors = np.sqrt(probabilities * (1 - probabilities) / len(runs))
    assert np.all(np.abs(frequencies - probabilities) <= 4 * errors)
    counts = np.array([hits.cumsum() for hits, _ in runs])
    assert np.all(np.abs(counts - probabilities.cumsum()) < 1 + 1e-9)


def test_estimates_from_random_samples_are_unbiased_and_those_from_all_samples_are_not() -> None:
    # A day of a camera: by day many objects and unsure boxes, at night few and sure ones, with gaps.
    rng = np.random.default_rng(4)
    times = np.cumsum(rng.choice([100.0, 200.0, 2700.0], 400, p=[0.6, 0.38, 0.02]))
    busy = np.sin(times / 7000) > 0.2
    objects = rng.poisson(np.where(busy, 6, 1))
    scores = np.where(busy, 0.5, 0.97)
    truth = objects[1:].sum()  # the first candidate of a stream stands for no time
    totals, means = [], []
    for seed in range(40):
        frames = (("s", float(at), float(score)) for at, score in zip(times, scores, strict=True))
        taken = select(seed, frames, restart_s=9000, looks=10)
        totals.append(sum(objects[c.candidate.seq] / c.probability for c in taken if c.probability))
        means.append(np.mean([objects[c.candidate.seq] for c in taken]))

    def standard_errors(values: list[float], expected: float) -> float:
        return float(abs(np.mean(values) - expected) / (np.std(values) / math.sqrt(len(values))))

    assert standard_errors(totals, truth) < 3
    assert np.std(totals) > 0
    assert standard_errors(means, objects.mean()) > 10, "all samples are chosen by their content"


def test_many_large_images_make_random_samples_rarer_in_all_streams_alike() -> None:
    schedule = RandomSchedule(1800, 24 * 10_000_000, random.Random(1))
    taken: dict[str, float] = {"small": 0, "large": 0}
    counts = dict.fromkeys(taken, 0)
    for index in range(0, 400 * 3600, 60):
        for name, size in (("small", 1_000_000), ("large", 9_000_000)):
            hit, _ = schedule.draw(name, T0 + index, size)
            taken[name] += hit * size
            counts[name] += hit
    # 20 MB an hour would come, 10 MB may.
    assert sum(taken.values()) == pytest.approx(400 * 10_000_000, rel=0.05)
    assert counts["small"] == pytest.approx(counts["large"], rel=0.03)


def test_a_clock_that_is_set_back_costs_one_candidate() -> None:
    schedule = RandomSchedule(1800, 1 << 40, random.Random(1))
    schedule.draw("s", T0 + 86_400, 1)
    assert schedule.draw("s", T0, 1) == (False, 0.0)
    assert schedule.draw("s", T0 + 18, 1)[1] == pytest.approx(0.01)
    # A candidate that another one has overtaken stands for no time, and takes none from the next.
    assert schedule.draw("s", T0 + 17, 1)[1] == 0
    assert schedule.draw("s", T0 + 36, 1)[1] == pytest.approx(0.01)


def test_remembered_streams_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_schedule, "MAX_STREAMS", 2)
    schedule = RandomSchedule(1800, 1 << 40, random.Random(1))
    for name in ("a", "b", "c"):
        schedule.draw(name, T0, 1)
    assert list(schedule.state()["streams"]) == ["b", "c"]


def test_the_state_survives_in_its_file_and_a_damaged_file_costs_only_the_state(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def show(selection: Selection, *times: float) -> None:
        for at in times:
            selection.consider(candidate(0.5, stream="s", at=T0 + at), at, lambda: look(0))

    def opened() -> tuple[Selection, SelectionFile]:
        selection = Selection(Policy(), random.Random(1))
        file = SelectionFile(tmp_path / "selection", selection)
        file.restore(0.0, T0)
        return selection, file

    first, file = opened()
    assert caplog.records == []
    show(first, 0.0, 70.0)
    file.tick(70.0, T0 + 70)
    written = (tmp_path / "selection").read_bytes()
    show(first, 75.0)
    file.tick(75.0, T0 + 75)
    assert (tmp_path / "selection").read_bytes() == written, "ten seconds have not passed"
    second, _ = opened()
    assert second.state(0.0, T0)["random"] == msgpack.unpackb(written)["state"]["random"]
    for damage in (written[:-3], b"", msgpack.packb({"schema": 9}), msgpack.packb([1])):
        caplog.clear()
        (tmp_path / "selection").write_bytes(damage)
        third, _ = opened()
        assert third.state(0.0, T0)["random"]["streams"] == {}
        assert "begins anew" in caplog.text
