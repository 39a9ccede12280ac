"""Finds the largest number of streams for which ages and drops stay within limits."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from streamer.simulation.errors import BadScenario
from streamer.simulation.streams.report import Report
from streamer.simulation.streams.scenario import MAX_STREAMS, Mix, Scenario
from streamer.simulation.streams.simulation import Progress, simulate

#: The search ends when the smallest number that is too large exceeds the result by at most this factor.
PRECISION = 1.02
#: Captured frames of a usual measurement, and its shortest and longest time in virtual seconds.
_USUAL_FRAMES = 100_000
_SHORTEST_S, _LONGEST_S = 5.0, 20.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Holds what a replica must not exceed. A stream that is refused exceeds them, too."""

    #: Share of the captured frames without a result, and 95th percentile of the age of results.
    most_drops: float
    age_p95_ms: float

    def hold(self, report: Report) -> bool:
        """Return whether a simulation stayed within the limits."""
        return (
            not report.refused
            and report.drop_share <= self.most_drops
            and report.age_p95 is not None
            and report.age_p95 <= self.age_p95_ms
        )


def usual_seconds(mix: Mix) -> float:
    """Return the virtual seconds to measure: fewer for many frames, which show as much in less time."""
    return min(_LONGEST_S, max(_SHORTEST_S, _USUAL_FRAMES / mix.fps))


def find_most(
    scenario: Scenario, limits: Limits, *, fixed_seconds: bool = False, progress: Progress | None = None
) -> Report:
    """Return the report of the largest multiple of the mix that stays within the limits.

    The length of each measurement is that of `usual_seconds`, unless it is fixed. Raises BadScenario if even
    the mix itself exceeds the limits, or if the largest number of streams does not.
    """

    def run(factor: int) -> Report:
        mix = scenario.mix.times(factor)
        length_s = scenario.seconds if fixed_seconds else usual_seconds(mix)
        return simulate(dataclasses.replace(scenario, mix=mix, seconds=length_s), progress)

    best, report = 1, run(1)
    if not limits.hold(report):
        age = "no result" if report.age_p95 is None else f"{report.age_p95:.0f} ms at p95"
        raise BadScenario(
            f"limits: even {scenario.mix} exceeds them ({report.drop_share:.1%} dropped, {age}, "
            f"{report.refused} streams refused)"
        )
    beyond = 2
    while True:
        if scenario.mix.streams * beyond > MAX_STREAMS:
            raise BadScenario(f"limits: they hold for {best * scenario.mix.streams} streams and more")
        tried = run(beyond)
        if not limits.hold(tried):
            break
        best, report, beyond = beyond, tried, beyond * 2
    while beyond - best > 1 and beyond > best * PRECISION:
        middle = (best + beyond) // 2
        tried = run(middle)
        if limits.hold(tried):
            best, report = middle, tried
        else:
            beyond = middle
    return report
