"""Replays simulated series through the limits of the drift monitor, without the monitor around them.

Rows are summed up in blocks at once, and the ratios of all checks are computed together, by the functions
that judge one check in the service. So days take a fraction of the time. Left out are the distances of
windows: they hardly decide, because their limits are wider than those of the means, but they can veto
(`ColumnScore.ratio`). The effect on detections is left out, too, so that the severity is not told.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamer.drift.blocks import Blocks, Signals
from streamer.drift.change_points import GAP, SCALES
from streamer.drift.day import Seen
from streamer.drift.episode import COMPARED_RATIO, Episode, Onset
from streamer.drift.group_limits import KEPT_BLOCKS, SOUGHT_BLOCKS, Limits
from streamer.drift.monitor import DriftConfig
from streamer.drift.rows import CategoryCounts
from tests.helpers.drift_series import HOUR_S, Floats, Series
from tests.helpers.drift_trial import (
    FOUND_WITHIN_S,
    Opinion,
    Outcome,
    Trial,
    faults_of,
    faulty_series,
    hours_of_reference,
    recording_of,
)

#: Checks are made at the end of every second block.
CHECK_BLOCKS = 2
#: A check needs this many rows in its window.
MIN_ROWS = 100
BLOCK_S = DriftConfig().window_s / 6


@dataclass(frozen=True, slots=True)
class _Checks:
    """Holds the checks of a series: their times, whether each is possible, and the ratios."""

    blocks: Blocks
    possible: npt.NDArray[np.bool_]
    #: By basis, (blocks, signals); sudden changes apart, because they do not count during an episode.
    levels: dict[str, Floats]
    steps: list[Floats]


def replay(trial: Trial) -> Outcome:
    """Run a trial as `drift_trial.run` does."""
    recording = recording_of(trial)
    series, now = recording.series, recording.now
    hours = hours_of_reference(trial.world, trial.reference_h)
    reference = series.between(now - hours * HOUR_S, now)
    signals = Signals.of(_classes(reference))
    limits = Limits.of_blocks(
        signals, _blocks(reference, signals), Seen.of(reference.at), DriftConfig().alpha
    )
    episode, outcome = Episode(), Outcome(trial.days, [], 0.0)
    warm = series.between(now - KEPT_BLOCKS * BLOCK_S, recording.end)
    running = []
    for at, begun in run_checks(checks_of(limits, warm, signals), limits, episode, now):
        running.append((at, episode.on))
        if begun:
            outcome.false.append(at - now)
    outcome.drifting = float(np.mean([on for _, on in running])) if running else 0.0
    times = [at for at, _ in running]
    for begin, kind in faults_of(trial, recording).items():
        last = int(np.searchsorted(times, begin)) - 1
        if last >= 0 and running[last][1]:
            outcome.delays[kind] = math.nan
            continue
        before = series.between(begin - KEPT_BLOCKS * BLOCK_S, begin)
        whole = before.joined(faulty_series(trial, kind, begin))
        twin = Episode()
        checks = run_checks(checks_of(limits, whole, signals), limits, twin, begin)
        found = next((at for at, begun in checks if begun), math.inf)
        outcome.delays[kind] = found - begin if found - begin <= FOUND_WITHIN_S else math.inf
        if math.isfinite(outcome.delays[kind]):
            onset = twin.onset
            outcome.opinions[kind] = Opinion(onset.kind if onset is not None else "", "")
    return outcome


def run_checks(
    checks: _Checks, limits: Limits, episode: Episode, after: float
) -> Iterator[tuple[float, bool]]:
    """Yield the time of each check after a time, and whether an episode begins."""
    columns, ended_at = limits.signals.columns, 0.0
    span_s = (2 * max(SCALES) + GAP) * BLOCK_S
    ends = checks.blocks.ends
    for place in range(int(np.searchsorted(ends, after, side="right")), len(ends), CHECK_BLOCKS):
        at = float(ends[place])
        if not checks.possible[place]:
            continue
        ratios = list(checks.levels.values())
        if not episode.running and at - ended_at > span_s:
            ratios += checks.steps
        signals = np.max([each[place] for each in ratios], axis=0)
        by_column: dict[str, float] = {}
        for signal in np.flatnonzero(signals >= COMPARED_RATIO).tolist():
            by_column[columns[signal]] = max(by_column.get(columns[signal], 0.0), float(signals[signal]))
        most = int(np.argmax(signals))
        onset = None
        if signals[most] >= 1:
            part = checks.blocks
            recent = Blocks(part.first, part.block_s, part.means[: place + 1], part.counts[: place + 1]).last(
                SOUGHT_BLOCKS
            )
            began = limits.beginning(recent, most)
            sudden = any(each[place, most] >= signals[most] for each in checks.steps)
            onset = Onset("sudden", at) if sudden else Onset(*began) if began is not None else None
        was_running = episode.running
        begun = episode.add_window(float(signals[most]), at, calibrated=True, onset=onset, columns=by_column)
        if was_running and not episode.running:
            ended_at = at
        yield at, begun


def checks_of(limits: Limits, series: Series, signals: Signals) -> _Checks:
    """Return the checks of a series, whose first rows are those that long means need."""
    blocks = _blocks(series, signals)
    found: dict[str, Floats] = {}
    steps = []
    for basis, ratios in limits.ratios(blocks, len(blocks), steps=True):
        if basis == "step":
            steps.append(ratios)
        else:
            found[basis] = np.maximum(found[basis], ratios) if basis in found else ratios
    rows = np.convolve(blocks.counts[:, 0], np.ones(6))[: len(blocks)]
    known = [limits.seen.covers(end - 6 * BLOCK_S, end) for end in blocks.ends.tolist()]
    return _Checks(blocks, np.array(known) & (rows >= MIN_ROWS), found, steps)


def _blocks(series: Series, signals: Signals) -> Blocks:
    total = series.counts.sum(axis=1)
    shares = np.full((len(series), len(signals.labels)), np.nan)
    some = total > 0
    for place, label in enumerate(signals.labels):
        shares[some, place] = series.counts[some, series.labels.index(label)] / total[some]
    first = int(series.at[0] // BLOCK_S)
    count = int(series.at[-1] // BLOCK_S) - first + 1
    return Blocks.of(series.at, np.hstack([series.numbers.astype(np.float64), shares]), BLOCK_S, first, count)


def _classes(series: Series) -> list[CategoryCounts]:
    totals = series.counts.sum(axis=0).tolist()
    return [tuple(zip(series.labels, totals, strict=True))]
