"""Judges a stream: makes its reference, runs the monitor over its rows, lets Evidently confirm drift."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from streamer.drift.monitor import Check, DriftConfig
from streamer.drift.reference import MIN_WINDOWS, GroupReference, Reference, learn
from streamer.drift.row_file import FILE_S
from streamer.drift.rows import Row, Table
from streamer.drift_evaluation.evidently import Evidently
from streamer.drift_evaluation.period import Period
from streamer.drift_evaluation.stored_rows import StoredRows, most_rows
from streamer.drift_evaluation.stream_result import StreamResult, Verdict
from streamer.drift_evaluation.stream_run import LEAD_S, Scores, StreamRun

#: Most rows of one stream from which a reference is learned; they take some 200 MB.
MAX_REFERENCE_ROWS = 400_000
#: Overlapping replicas are mentioned from this share of the period on.
OVERLAP_SHARE = 0.05
#: Streams of these names are many, so that several replicas have them at the same time.
SHARED_NAMES = frozenset(("unnamed", "posted", "demo-page"))


@dataclass(slots=True)
class StreamJudge:
    """Judges streams against a reference: that of a file, or the rows of a period."""

    rows: StoredRows
    period: Period
    reference: Reference | Period
    config: DriftConfig
    evidently: Evidently
    on_progress: Callable[[str], None]

    def judge(self, stream: str) -> tuple[StreamResult, Check | None]:
        """Return what was found about a stream, and its worst window. Raises CannotRead."""
        result = StreamResult(stream)
        self.on_progress(f"{stream}: reference")
        result.reference = self._reference_of(result)
        self.on_progress(f"{stream}: windows")
        if result.reference is None:
            self._only_count(result)
            return result, None
        run = self._run(result, {})
        if run.decisive and self.evidently.on:
            run = self._confirmed(run)
        result = run.result
        _conclude(result)
        return result, run.worst

    # -- the reference -------------------------------------------------------------------------------

    def _reference_of(self, result: StreamResult) -> GroupReference | None:
        """Return the reference of a stream; None, and the reason in the result, without a usable one."""
        if isinstance(self.reference, Reference):
            found = self.reference.of(result.stream)
            if found is None:
                result.reason = "the reference has no rows of this stream"
            return found
        rows: list[Row] = []
        for joined in self.rows.half_hours(result.stream, self.reference, self._most(self.reference)):
            rows += joined.rows
            result.reference_course.add(joined.begin, Table.of(joined.rows).numbers)
        models = Counter(row.model for row in rows)
        try:
            learned, _ = learn(rows, self.config.window_s, self.config.alpha)
        except ValueError as error:
            result.reason = (
                f"the reference period has {error}" if rows else "the reference period has no rows"
            )
            return None
        if not learned.calibrated:
            result.reason = (
                f"the reference period has {learned.span_h:.1f} h of rows of model {learned.model}; "
                f"needed are about {MIN_WINDOWS * self.config.window_s / 3600:g} h"
            )
            return None
        if len(models) > 1:
            left_out = {model: count for model, count in models.items() if model != learned.model}
            others = ", ".join(f"{count} rows of {model}" for model, count in left_out.items())
            result.notes.append(
                f"The reference is made of {models[learned.model]} rows of model {learned.model}; "
                f"other models are left out ({others})."
            )
        return learned

    def _most(self, period: Period) -> int:
        """Return the most rows of a half hour: as many as a replica measures, fewer in a long period."""
        reference = self.reference if isinstance(self.reference, Period) else period
        half_hours = max(1.0, (reference.end - reference.begin) / FILE_S)
        return min(most_rows(self.config.interval_s), int(MAX_REFERENCE_ROWS / half_hours))

    # -- windows -------------------------------------------------------------------------------------

    def _run(self, result: StreamResult, scores: Scores) -> StreamRun:
        if result.reference is None:
            raise ValueError(f"{result.stream} has no reference")
        run = StreamRun(result, result.reference, self.period, self.config, scores)
        lead = Period(self.period.begin - LEAD_S, self.period.end)
        for joined in self.rows.half_hours(result.stream, lead, self._most(self.period)):
            run.add(joined)
        run.finish()
        return run

    def _confirmed(self, run: StreamRun) -> StreamRun:
        """Let Evidently score the windows that began the episodes, and judge again by its scores."""
        result = run.result
        if result.reference is None:
            return run
        self.on_progress(f"{result.stream}: Evidently")
        checks = list({check.window.end: check for check in run.decisive}.values())
        scores = self.evidently.score(checks, result.reference.model)
        if not scores:
            return run
        again = StreamResult(
            result.stream,
            reference=result.reference,
            reference_course=result.reference_course,
            notes=result.notes,
        )
        return self._run(again, scores)

    def _only_count(self, result: StreamResult) -> None:
        """Count the rows of a stream that cannot be judged."""
        for joined in self.rows.half_hours(result.stream, self.period, self._most(self.period)):
            result.replicas.update(joined.replicas)
            result.models.update(row.model for row in joined.rows)


def _conclude(result: StreamResult) -> None:
    """Set the verdict, the reason and the notes of a stream whose windows have been judged."""
    reference = result.reference
    if result.episodes:
        result.verdict = Verdict.DRIFT
    elif result.scored:
        result.verdict = Verdict.NONE
    elif not result.rows:
        result.reason = "it has no rows in the period"
    elif any(window.stale for window in result.windows if window.outcome == "scored"):
        known = reference.model if reference is not None else ""
        others = ", ".join(model for model in result.models if model != known)
        result.reason = (
            f"its rows are of model {others}, the reference is of model {known}; its images look as usual"
        )
    elif any(window.outcome == "not_seen" for window in result.windows):
        gaps = reference.limits.seen.gaps if reference is not None and reference.limits is not None else []
        result.reason = f"the reference has no rows of these times of day: {', '.join(gaps)}"
    else:
        result.reason = "no window has enough rows"
    _add_notes(result)


def _add_notes(result: StreamResult) -> None:
    judged = [window for window in result.windows if window.outcome == "scored"]
    stale = sum(window.stale for window in judged)
    if result.reference is not None and 0 < stale < len(judged):
        others = ", ".join(model for model in result.models if model != result.reference.model)
        result.notes.append(
            f"In {stale} of {len(judged)} windows boxes are not compared: they are of {others}, "
            f"the reference is of {result.reference.model}."
        )
    if result.verdict is not Verdict.CANNOT_JUDGE and len(judged) < 0.5 * len(result.windows):
        result.notes.append(f"Only {len(judged)} of {len(result.windows)} windows could be judged.")
    if result.stream not in SHARED_NAMES and result.overlap_s > OVERLAP_SHARE * FILE_S * len(
        result.course.at
    ):
        result.notes.append(
            f"{len(result.replicas)} replicas measured it at the same time for {result.overlap_s / 60:.0f} "
            "minutes: several cameras have this name, or a clock is wrong."
        )
