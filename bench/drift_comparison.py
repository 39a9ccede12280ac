"""Compares the drift monitor with detectors from the literature, in the worlds of ``BENCH=drift_worlds``.

First each detector of `drift_detectors.py` is given the setting of its grid that does best with cameras of
other seeds: among those with at most 0.05 false episodes a stream-day the one that finds most faults, or else
the one with the fewest false episodes. Then all of them see the same rows of further cameras. The service's
own monitor is one of the lines.

  make bench BENCH=drift_comparison
  make bench BENCH=drift_comparison ARGS="--worlds slow,day_night --runs 3 --reference 24"
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
import sys
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from bench.drift_detectors import DETECTORS
from tests.helpers.drift_faults import KINDS
from tests.helpers.drift_trial import Learn, Outcome, ServiceDetector, Summary, Trial, run
from tests.helpers.drift_worlds import WORLDS

#: False episodes a stream-day that a setting may have while tuning.
FALSE_PER_DAY = 0.05
TUNING_SEED, FIRST_SEED = 1, 1000
#: Worlds that settings are chosen in.
TUNING_WORLDS = ("stationary", "slow", "day_night", "shop")
#: Name of the line of the service's own monitor.
MONITOR = "this monitor"

#: Name of a detector and its setting.
Setting = tuple[str, tuple[tuple[str, float], ...]]


def maker(setting: Setting) -> Learn:
    """Return what makes the detector of a setting."""
    name, options = setting
    if name == MONITOR:
        return ServiceDetector
    detector = DETECTORS[name]
    return lambda reference: detector(reference, **dict(options))


def settings(name: str) -> list[Setting]:
    """Return all settings of a detector's grid."""
    grid = DETECTORS[name].grid
    return [(name, tuple(zip(grid, values, strict=True))) for values in itertools.product(*grid.values())]


def run_settings(job: tuple[Trial, list[Setting]]) -> list[Outcome]:
    """Run a trial with each setting; they share the recording."""
    trial, chosen = job
    return [run(trial, maker(setting)) for setting in chosen]


def run_jobs(
    pool: multiprocessing.pool.Pool, trials: list[Trial], chosen: list[Setting], what: str
) -> Mapping[Setting, dict[str, list[Outcome]]]:
    """Return the outcomes of all trials by setting and world."""
    outcomes: dict[Setting, dict[str, list[Outcome]]] = {setting: {} for setting in chosen}
    done = pool.imap(run_settings, [(trial, chosen) for trial in trials])
    for trial, found in zip(trials, tqdm(done, desc=what, total=len(trials), unit="camera"), strict=True):
        for setting, outcome in zip(chosen, found, strict=True):
            outcomes[setting].setdefault(trial.world, []).append(outcome)
    return outcomes


def best(outcomes: Mapping[Setting, dict[str, list[Outcome]]]) -> list[Setting]:
    """Return the best setting of each detector."""
    found: dict[str, tuple[tuple[float, ...], Setting]] = {}
    for setting, by_world in outcomes.items():
        summary = Summary([outcome for each in by_world.values() for outcome in each])
        good = summary.false_per_day <= FALSE_PER_DAY
        hits = sum(summary.found(kind)[0] for kind in KINDS)
        hours = sum(min(24.0, summary.median_delay_h(kind)) for kind in KINDS)
        rank = (0.0, -hits, hours) if good else (1.0, summary.false_per_day, hours)
        if setting[0] not in found or rank < found[setting[0]][0]:
            found[setting[0]] = rank, setting
    return [setting for _, setting in found.values()]


def cells(name: str, world: str, outcomes: list[Outcome]) -> list[str]:
    """Return one line of the table."""
    summary = Summary(outcomes)
    line = [world, name, f"{summary.false_per_day:.2f}", f"{summary.drifting:.0%}"]
    for kind in KINDS:
        count, of = summary.found(kind)
        median = summary.median_delay_h(kind)
        line.append(f"{count}/{of}, {median:.1f}" if math.isfinite(median) else f"{count}/{of}, -")
    return line


def main() -> None:
    """Tune, compare, and print the settings and the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worlds", default=",".join(WORLDS), help="worlds to compare in, with commas")
    parser.add_argument("--reference", type=float, default=72.0, help="hours of reference")
    parser.add_argument("--runs", type=int, default=6, help="cameras of each world")
    parser.add_argument("--days", type=float, default=10.0, help="days without a fault for each camera")
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="seed of the first camera")
    parser.add_argument("--tuning-runs", type=int, default=2, help="cameras of each world for tuning")
    parser.add_argument("--processes", type=int, default=1, help="cameras at a time")
    parser.add_argument("--without-monitor", action="store_true", help="leave out the service's own monitor")
    parser.add_argument("--json", type=Path, help="also write all outcomes to this file")
    arguments = parser.parse_args()
    worlds = arguments.worlds.split(",")
    if unknown := [world for world in worlds if world not in WORLDS]:
        parser.error(f"--worlds: unknown world {unknown[0]!r}; known are {', '.join(WORLDS)}")
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        tuning = [
            Trial(world, arguments.reference, arguments.days, TUNING_SEED + number)
            for world in TUNING_WORLDS
            for number in range(arguments.tuning_runs)
        ]
        grid = [setting for name in DETECTORS for setting in settings(name)]
        chosen = best(run_jobs(pool, tuning, grid, "tuning"))
        for name, options in chosen:
            sys.stdout.write(f"{name}: {', '.join(f'{key} {value:g}' for key, value in options)}\n")
        if not arguments.without_monitor:
            chosen.append((MONITOR, ()))
        trials = [
            Trial(world, arguments.reference, arguments.days, arguments.seed + number)
            for world in worlds
            for number in range(arguments.runs)
        ]
        outcomes = run_jobs(pool, trials, chosen, "comparison")
    head = ["world", "detector", "false a day", "in drift", *KINDS]
    lines = [head, ["---"] * len(head)]
    lines += [cells(setting[0], world, outcomes[setting][world]) for world in worlds for setting in chosen]
    sys.stdout.write("".join(f"| {' | '.join(line)} |\n" for line in lines))
    if arguments.json:
        arguments.json.write_text(
            json.dumps(
                [
                    [
                        setting[0],
                        dict(setting[1]),
                        world,
                        [[o.days, o.false, o.drifting, o.delays] for o in found],
                    ]
                    for setting, by_world in outcomes.items()
                    for world, found in by_world.items()
                ]
            )
        )


if __name__ == "__main__":
    main()
