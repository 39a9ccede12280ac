"""Limits of means over objects follow the number of boxes, so that quiet nights and rush hours are alike."""

from __future__ import annotations

import numpy as np
import pytest

from streamer.drift.blocks import Blocks, Floats
from streamer.drift.levels import Days, Expectation, expect, middles
from streamer.drift.object_levels import ObjectLevels
from streamer.drift.rows import NUMERIC
from tests.helpers.drift_rows import START

BLOCK_S, ROWS, ALPHA = 300.0, 60, 0.01
DAY = 288
N_BOXES, CONFIDENCE, ACROSS, DOWN = (
    NUMERIC.index(name) for name in ("n_boxes", "conf_mean", "cx_med", "cy_med")
)
BUSY, QUIET = 6.0, 0.4
#: Deviation of a mean over a hundred boxes.
NOISE = {CONFIDENCE: 0.04, ACROSS: 0.08, DOWN: 0.08}


def blocks(count: int, seed: int, begin: float = START) -> Blocks:
    """Return blocks of a place that is busy from 12 to 24 h; variances fall with the number of boxes."""
    rng = np.random.default_rng(seed)
    means = np.zeros((count, len(NUMERIC)))
    busy = np.arange(count) % DAY >= DAY // 2
    boxes = np.where(busy, BUSY, QUIET) * rng.uniform(0.7, 1.3, count)
    means[:, N_BOXES] = boxes
    for place, noise in NOISE.items():
        means[:, place] = 0.5 + noise * rng.standard_normal(count) * np.sqrt(100 / (boxes * ROWS))
    counts = np.full(means.shape, float(ROWS))
    counts[:, list(NOISE)] = np.minimum(1.0, boxes)[:, None] * ROWS
    return Blocks(int(begin // BLOCK_S), BLOCK_S, means, counts)


def learned(reference: Blocks) -> tuple[ObjectLevels, Expectation]:
    days = Days(reference)
    expectation, others = expect(reference, days, np.full(len(NUMERIC), float(ROWS)))
    return ObjectLevels.learn(reference, NUMERIC, days, others, ALPHA), expectation


def ratios(levels: ObjectLevels, expectation: Expectation, recent: Blocks) -> dict[int, Floats]:
    found = levels.ratios(recent, expectation.at(middles(recent)), NUMERIC, 1)
    return {length: each[-1] for length, each in found}


@pytest.fixture(scope="module")
def week() -> tuple[ObjectLevels, Expectation]:
    return learned(blocks(7 * DAY, 1))


def test_the_variance_is_found_to_fall_with_the_number_of_boxes(
    week: tuple[ObjectLevels, Expectation],
) -> None:
    levels, _ = week
    assert levels.exponent > 0.7
    # Near the quantile of the normal distribution at this rate, 4.5 deviations, and not far above it.
    deviation = NOISE[CONFIDENCE] * np.sqrt(100 / levels.typical[6])
    members = [name for name in NUMERIC if name in ("conf_mean", "frac_low", "area_med")]
    limit = levels.limits[6][members.index("conf_mean")] / deviation
    assert 4 < limit < 7


@pytest.mark.parametrize("hour", [6, 18])
def test_a_lost_tenth_of_confidence_is_found_by_day_and_by_night(
    week: tuple[ObjectLevels, Expectation], hour: int
) -> None:
    later = blocks(8 * DAY, 1).last(DAY)  # the day after
    end = hour * 12
    usual = Blocks(later.first, BLOCK_S, later.means[:end], later.counts[:end])
    for found in ratios(*week, usual).values():
        assert found.max() < 1
    usual.means[-24:, CONFIDENCE] -= 0.1
    assert ratios(*week, usual)[24][CONFIDENCE] > 1


def test_a_small_move_in_both_directions_is_found_together(
    week: tuple[ObjectLevels, Expectation],
) -> None:
    later = blocks(8 * DAY, 1).last(DAY)
    for share, joint in ((0.6, False), (0.9, True)):
        means = later.means.copy()
        levels, expectation = week
        expected = expectation.at(middles(later))
        for place in (ACROSS, DOWN):
            means[:, place] = expected[:, place]
            members = [n for n in NUMERIC if n in ("conf_mean", "frac_low", "area_med", "log_aspect_med")]
            place_in = len(members) + (place == DOWN)
            boxes = later.means[-12:, N_BOXES].sum() * ROWS
            scale = (boxes / levels.typical[12]) ** (levels.exponent / 2)
            means[-12:, place] += share * levels.limits[12][place_in] / scale
        found = ratios(levels, expectation, Blocks(later.first, BLOCK_S, means, later.counts))[12]
        assert bool(max(found[ACROSS], found[DOWN]) > 1) is joint


def test_without_enough_boxes_nothing_is_said(week: tuple[ObjectLevels, Expectation]) -> None:
    later = blocks(8 * DAY, 1).last(12)
    later.means[:, N_BOXES] = 0.01
    later.counts[:] = 1.0
    later.means[:, CONFIDENCE] = 0.1
    for found in ratios(*week, later).values():
        assert found.max() == 0
