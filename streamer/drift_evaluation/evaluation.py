"""Evaluates the drift of all streams in a store, one after the other: ``streamer drift evaluate``."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from streamer.config.settings import Settings
from streamer.datasets.sample import BadRequest
from streamer.datasets.source import Source
from streamer.drift.errors import ReferenceBroken
from streamer.drift.monitor import Check, DriftConfig
from streamer.drift.reference import Reference
from streamer.drift.reference_document import parse
from streamer.drift.row_file import FILE_S
from streamer.drift_evaluation.evidently import Evidently
from streamer.drift_evaluation.fleet_result import FleetResult
from streamer.drift_evaluation.period import Period, local_text, parse_period
from streamer.drift_evaluation.sample_judge import SampleJudge
from streamer.drift_evaluation.stored_rows import StoredRows
from streamer.drift_evaluation.stream_judge import StreamJudge
from streamer.drift_evaluation.stream_result import StreamResult, Verdict
from streamer.drift_evaluation.stream_run import LEAD_S

#: Seconds that the files of a half hour may need to arrive. Periods that are lengths end that long ago.
DELIVERY_S = 300.0
#: Most streams whose worst window Evidently describes in a report; each has 5 MB.
MAX_REPORTS = 10


class Progress(Protocol):
    """Shows what is being done, and the completed share (0..1) if it is known."""

    def __call__(self, text: str, share: float | None = None) -> None:
        """Show it."""


@dataclass(frozen=True, slots=True)
class EvaluationOptions:
    """Says what to evaluate."""

    #: The period, as the user wrote it.
    period: str = "24h"
    #: A period, or the content of a reference file.
    reference: str | bytes = "7d"
    #: Name of the reference for people.
    reference_name: str = ""
    #: Only these streams; empty: all.
    streams: frozenset[str] = frozenset()
    min_streams: int | None = None
    #: Whether Evidently may run, and whether it makes reports.
    evidently: bool = True
    reports: bool = True


@dataclass(slots=True)
class Evaluation:
    """Holds the result, and Evidently's report by stream."""

    result: FleetResult
    reports: dict[str, str] = field(default_factory=dict)


def evaluate(
    source: Source,
    place: str,
    settings: Settings,
    options: EvaluationOptions,
    on_progress: Progress,
    now: float | None = None,
) -> Evaluation:
    """Judge all streams. Raises BadRequest, CannotRead or ReferenceBroken."""
    config = DriftConfig.of(settings)
    newest_s = (time.time() if now is None else now) - DELIVERY_S
    period = parse_period(options.period, "--period", newest_s // FILE_S * FILE_S)
    reference = _reference_of(options, config, period)
    rows = StoredRows(source)
    periods = [Period(period.begin - LEAD_S, period.end)]
    if isinstance(reference, Period):
        periods.append(reference)
    rows.scan(periods, on_progress)
    names = [name for name in rows.streams if not options.streams or name in options.streams]
    samples = SampleJudge(source, period, reference, config)
    sampled = set() if options.streams else samples.streams()
    if not sampled and not any(rows.files_of(name, period) for name in names):
        raise BadRequest(_no_rows(rows, place, options, period))
    enabled = options.evidently and settings.drift_engine != "builtin"
    evidently = Evidently(settings.drift_engine_timeout_s, enabled=enabled)
    evaluation = Evaluation(
        FleetResult(
            place,
            period,
            options.reference_name or str(reference),
            [],
            rows.replicas,
            options.min_streams,
            zone=time.strftime("%Z"),
        )
    )
    result = evaluation.result
    worst: dict[str, Check] = {}
    for number, name in enumerate(names):
        shown = partial(on_progress, share=number / len(names))
        found, check = StreamJudge(rows, period, reference, config, evidently, shown).judge(name)
        result.streams.append(found)
        if check is not None and found.verdict is Verdict.DRIFT and len(worst) < MAX_REPORTS:
            worst[name] = check
    for name in sorted(sampled - set(names)):
        result.streams.append(StreamResult(name, reason="it has no rows in the period"))
    for stream in result.streams:
        on_progress(f"{stream.stream}: samples", 1.0)
        samples.add(result, stream)
    for stream in result.streams if options.reports else ():
        if stream.stream in worst and stream.reference is not None:
            on_progress(f"{stream.stream}: report of Evidently", 1.0)
            html = evidently.report(worst[stream.stream], stream.reference.model)
            if html:
                evaluation.reports[stream.stream] = html
    result.engine_problem = evidently.problem
    result.file_notes, result.left_out = tuple(rows.notes), rows.left_out
    return evaluation


def _reference_of(options: EvaluationOptions, config: DriftConfig, period: Period) -> Reference | Period:
    if isinstance(options.reference, bytes):
        try:
            return parse(options.reference, window_s=config.window_s, alpha=config.alpha)
        except ReferenceBroken as error:
            raise BadRequest(f"--reference is {options.reference_name}: {error}") from error
    reference = parse_period(options.reference, "--reference", period.begin)
    if reference.begin < period.end and period.begin < reference.end:
        raise BadRequest(
            f"--reference is {options.reference!r}, {reference}, which overlaps the evaluated period, "
            f"{period}; a stream would be compared with itself"
        )
    return reference


def _no_rows(rows: StoredRows, place: str, options: EvaluationOptions, period: Period) -> str:
    present = [name for name in rows.streams if rows.files_of(name, period)]
    if present:
        return (
            f"--stream is {', '.join(sorted(options.streams))}; streams with rows in the period are "
            f"{', '.join(present[:10])}"
        )
    newest = rows.newest()
    if newest is None:
        return f"{place} has no drift rows; replicas store them with DRIFT_ROWS=1 (docs/drift.md)"
    return (
        f"{place} has no rows in the period; the newest are of {local_text(newest.begin + FILE_S)}: say "
        "which period to evaluate with --period FROM..TO"
    )
