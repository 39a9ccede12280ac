"""Adds to the results of streams what their samples say, and judges by random samples what has no rows."""

from __future__ import annotations

from dataclasses import dataclass

from streamer.datasets.source import Source
from streamer.drift.monitor import DriftConfig, Monitor
from streamer.drift.recent_rows import Window
from streamer.drift.reference import MIN_ROWS, GroupReference, Reference, learn
from streamer.drift.rows import Row
from streamer.drift.severity import severity
from streamer.drift_evaluation.fleet_result import FleetResult
from streamer.drift_evaluation.period import Period
from streamer.drift_evaluation.random_samples import (
    DrawnRow,
    equally_weighted,
    estimates_text,
    random_rows,
    samples_of,
    streams_with_samples,
)
from streamer.drift_evaluation.stream_result import FoundEpisode, StreamResult, Verdict, WindowPoint
from streamer.drift_evaluation.stream_run import moved_of


@dataclass(slots=True)
class SampleJudge:
    """Reads samples of the period, and of the reference if that is a period."""

    source: Source
    period: Period
    reference: Reference | Period
    config: DriftConfig

    def streams(self) -> set[str]:
        """Return the streams that have samples in the period. Raises CannotRead."""
        return streams_with_samples(self.source, self.period)

    def add(self, result: FleetResult, stream: StreamResult) -> None:
        """Add what samples say to a stream that has drifted, or that has no rows. Raises CannotRead."""
        if stream.verdict is Verdict.DRIFT:
            keys = samples_of(self.source, stream.stream, self.period, stream.episodes)
            if keys:
                result.samples[stream.stream] = keys
            before = self._before(stream)
            text = estimates_text(random_rows(self.source, stream.stream, self.period), before)
            if text:
                stream.notes.append(text)
        elif not stream.rows:
            self._judge(stream)

    def _before(self, stream: StreamResult) -> list[DrawnRow]:
        if isinstance(self.reference, Period):
            return random_rows(self.source, stream.stream, self.reference)
        return []

    def _judge(self, stream: StreamResult) -> None:
        """Compare all random samples of the period with the reference, with fixed thresholds."""
        now = equally_weighted(random_rows(self.source, stream.stream, self.period))
        reference = stream.reference if isinstance(self.reference, Reference) else None
        if reference is None and isinstance(self.reference, Period):
            before = equally_weighted(self._before(stream))
            try:
                reference = learn(before, self.config.window_s, self.config.alpha)[0]
            except ValueError:
                stream.reason = self._too_few(len(now), len(before))
                return
        if reference is None:
            return
        if len(now) < MIN_ROWS:
            stream.reason = self._too_few(len(now), reference.rows)
            return
        self._compare(stream, now, reference)

    @staticmethod
    def _too_few(now: int, before: int) -> str:
        return (
            f"it has no rows (DRIFT_ROWS=1 stores them), and too few random samples: {now} in the period and "
            f"{before} before; needed are {MIN_ROWS} each"
        )

    def _compare(self, stream: StreamResult, now: list[Row], reference: GroupReference) -> None:
        window = Window(self.period.begin, self.period.end, now)
        check = Monitor.score(stream.stream, window, reference)
        stream.reference = reference
        stream.models.update(row.model for row in now)
        drifted = check.ratio >= 1
        stream.windows = [WindowPoint(self.period.end, "scored", check.ratio, drifted, False, check.stale)]
        stream.notes.append(
            f"Judged by {len(now)} random samples over the whole period, weighted by their probabilities, "
            "with fixed thresholds."
        )
        if check.stale and not drifted:
            stream.reason = f"its samples are of another model than the reference, {reference.model}"
            return
        stream.reason = ""
        stream.verdict = Verdict.DRIFT if drifted else Verdict.NONE
        if drifted:
            stream.episodes = [
                FoundEpisode(
                    since=self.period.begin,
                    until=self.period.end,
                    goes_on=True,
                    severity=severity(check.ratio, check.effect),
                    worst=check.ratio,
                    kind=None,
                    changed_at=None,
                    moved=moved_of(check),
                    engine="builtin",
                )
            ]
