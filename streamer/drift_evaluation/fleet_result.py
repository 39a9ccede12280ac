"""Judges all streams together: more drift than chance explains, common causes, missing replicas. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from streamer.drift.day import DAY_S, HOUR_S
from streamer.drift.row_file import FILE_S
from streamer.drift_evaluation.period import Period, local_text
from streamer.drift_evaluation.stored_rows import ReplicaRows
from streamer.drift_evaluation.stream_result import FoundEpisode, StreamResult, Verdict

#: False episodes of a stream per day, by the least hours of reference: the upper ends of what was measured in
#: simulated worlds (docs/drift.md). A reference of seven days has a gap or two.
FALSE_PER_DAY = ((0.0, 0.044), (46.0, 0.036), (144.0, 0.036))
#: So many streams are in drift by chance with at most this probability.
CHANCE = 0.05
#: From this mean on, the Poisson distribution is taken as normal; the quantile of ``CHANCE``.
NORMAL_FROM, NORMAL_QUANTILE = 200.0, 1.645
#: Share of the streams that must have been judged.
MIN_JUDGED = 0.5
#: Episodes of different streams that begin within this time, at least so many, have a common cause.
TOGETHER_S, TOGETHER_STREAMS = HOUR_S, 3
#: A replica whose last row is older than this is missing: half an hour is its file, the rest its delivery.
MISSING_S = 2.0 * FILE_S


@dataclass(frozen=True, slots=True)
class Together:
    """Says that episodes of several streams began at about the same time. Times are unix seconds."""

    begin: float
    end: float
    streams: tuple[str, ...]
    #: The replicas that measured all of them; empty if there is none.
    replicas: tuple[str, ...]
    #: Columns that moved in all of them.
    columns: tuple[str, ...]


@dataclass(slots=True)
class FleetResult:
    """Holds what was found about all streams."""

    place: str
    period: Period
    #: The period or file of the reference, for people.
    reference: str
    streams: list[StreamResult]
    replicas: dict[str, ReplicaRows]
    #: Least number of streams in drift that is drift of the fleet; None: more than chance explains.
    min_streams: int | None
    #: Why Evidently did not decide; empty if it did.
    engine_problem: str = ""
    #: Files that were left out, and their number.
    file_notes: Sequence[str] = ()
    left_out: int = 0
    #: Time zone of the times of day.
    zone: str = "UTC"
    #: Keys of samples from the episodes, by stream.
    samples: dict[str, list[str]] = field(default_factory=dict)

    def of(self, verdict: Verdict) -> list[StreamResult]:
        """Return the streams with a verdict."""
        return [stream for stream in self.streams if stream.verdict is verdict]

    @property
    def judged_days(self) -> float:
        """Stream-days that were judged."""
        streams = [stream for stream in self.streams if stream.verdict is not Verdict.CANNOT_JUDGE]
        shares = (stream.scored / max(1, len(stream.windows)) for stream in streams)
        return sum(shares) * (self.period.end - self.period.begin) / DAY_S

    @property
    def expected_by_chance(self) -> float:
        """Number of false episodes that are expected in the judged stream-days."""
        spans = [stream.reference.span_h for stream in self.streams if stream.reference is not None]
        known_h = min(spans, default=math.inf)
        rates = [rate for least_h, rate in FALSE_PER_DAY if known_h >= least_h]
        return self.judged_days * rates[-1]

    @property
    def needed(self) -> int:
        """Number of streams in drift from which this is drift of the fleet."""
        # If all streams are in drift, it is drift of the fleet, however many there are.
        judged = len(self.streams) - len(self.of(Verdict.CANNOT_JUDGE))
        return self.min_streams or min(least_unlikely(self.expected_by_chance), max(1, judged))

    @property
    def verdict(self) -> Verdict:
        """Drift if enough streams are in drift, or one severely; cannot judge if too few could be judged."""
        drifting = self.of(Verdict.DRIFT)
        severe = any(episode.severity == "severe" for stream in drifting for episode in stream.episodes)
        if len(drifting) >= self.needed or (severe and self.min_streams is None):
            return Verdict.DRIFT
        judged = len(self.streams) - len(self.of(Verdict.CANNOT_JUDGE))
        return Verdict.NONE if judged and judged >= MIN_JUDGED * len(self.streams) else Verdict.CANNOT_JUDGE

    @property
    def summary(self) -> str:
        """One or two sentences about the verdict."""
        total, drifting = len(self.streams), self.of(Verdict.DRIFT)
        unjudged = len(self.of(Verdict.CANNOT_JUDGE))
        severe = sum(any(each.severity == "severe" for each in stream.episodes) for stream in drifting)
        if not drifting:
            text = f"None of {_streams(total - unjudged)} has drifted." if total > unjudged else ""
        else:
            text = f"{len(drifting)} of {_streams(total)} {'has' if len(drifting) == 1 else 'have'} drifted"
            text += f", {severe} severely." if severe else "."
            if self.verdict is not Verdict.DRIFT:
                text += f" Chance explains up to {self.needed - 1} in {self.judged_days:.1f} stream-days."
        if unjudged:
            text += f" {_streams(unjudged).capitalize()} cannot be judged."
        return text.strip()

    def missing(self) -> list[str]:
        """Return a sentence for each replica that ended with streams that no other replica goes on with."""
        found = []
        for name, replica in sorted(self.replicas.items(), key=lambda item: item[1].last):
            lost = [stream.stream for stream in self.streams if self._ended_with(stream, name, replica)]
            if lost:
                found.append(
                    f"{name}: its last rows are of {local_text(replica.last)}, and no other replica has gone "
                    f"on with {_names(lost)}"
                )
        return found

    def _ended_with(self, stream: StreamResult, name: str, replica: ReplicaRows) -> bool:
        if stream.stream not in replica.streams or self.period.end - replica.last < MISSING_S:
            return False
        ends = [end for other, (_, end) in stream.spans.items() if other != name]
        return max(ends, default=0.0) <= replica.last

    def together(self) -> list[Together]:
        """Return groups of episodes that began at about the same time in several streams."""
        begun = sorted(
            ((episode, stream) for stream in self.streams for episode in stream.episodes),
            key=lambda pair: pair[0].since,
        )
        groups: list[list[tuple[FoundEpisode, StreamResult]]] = []
        for pair in begun:
            if groups and pair[0].since - groups[-1][0][0].since <= TOGETHER_S:
                groups[-1].append(pair)
            else:
                groups.append([pair])
        return [
            _together(group)
            for group in groups
            if len({stream.stream for _, stream in group}) >= TOGETHER_STREAMS
        ]


def least_unlikely(expected: float) -> int:
    """Return the least number k >= 1 with P(X >= k) <= ``CHANCE`` for a Poisson variable with this mean."""
    if expected > NORMAL_FROM:
        return math.ceil(expected + NORMAL_QUANTILE * math.sqrt(expected))
    number, term = 0, math.exp(-expected)
    tail = 1.0
    while True:
        tail -= term
        number += 1
        if tail <= CHANCE:
            return number
        term *= expected / number


def _together(group: Sequence[tuple[FoundEpisode, StreamResult]]) -> Together:
    columns = [[column.name for column in episode.moved] for episode, _ in group]
    replicas = [set(stream.replicas) for _, stream in group]
    return Together(
        group[0][0].since,
        group[-1][0].since,
        tuple(dict.fromkeys(stream.stream for _, stream in group)),
        tuple(sorted(set.intersection(*replicas))),
        tuple(name for name in columns[0] if all(name in each for each in columns)),
    )


def _streams(count: int) -> str:
    return f"{count} stream" if count == 1 else f"{count} streams"


def _names(names: Sequence[str], shown: int = 5) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
