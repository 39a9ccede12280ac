"""Opens the store and the reference, evaluates, and writes the report: ``streamer drift evaluate``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from streamer.config.settings import Settings, SettingsError, load_settings
from streamer.datasets.sample import BadRequest, CannotRead
from streamer.datasets.source import SCHEME, BucketSource, open_source, parse_bucket
from streamer.drift_evaluation.document import document_of
from streamer.drift_evaluation.evaluation import EvaluationOptions, Progress, evaluate
from streamer.drift_evaluation.fleet_result import FleetResult
from streamer.drift_evaluation.output import dump, write_files
from streamer.drift_evaluation.report_page import page_name, report_text
from streamer.sampling.store import bucket_of, describe_store


def evaluate_place(
    place: str | None, options: EvaluationOptions, out: str | None, on_progress: Progress
) -> tuple[FleetResult, str]:
    """Evaluate the rows at ``place``; return the result, and where the report is.

    Raises BadRequest, CannotRead or CannotWrite.
    """
    try:
        settings = load_settings()
    except SettingsError as error:
        raise BadRequest(str(error)) from error
    options = _with_reference(options, settings)
    with open_source(place) as source:
        evaluation = evaluate(source, place or describe_store(settings), settings, options, on_progress)
    result = evaluation.result
    if out is None:
        return result, ""
    files = {page_name(stream): html for stream, html in evaluation.reports.items()}
    files["drift.json"] = dump(document_of(result))
    # The report comes last, so that whoever sees it finds what it refers to.
    files["report.html"] = report_text(result, tuple(evaluation.reports))
    return result, write_files(out, files, settings, result.period.end)


def _with_reference(options: EvaluationOptions, settings: Settings) -> EvaluationOptions:
    """Return the options with the content of the reference file, if they name one."""
    name = options.reference
    if not isinstance(name, str):
        return options
    if name.startswith(SCHEME):
        address, _, key = name.rpartition("/")
        with BucketSource(parse_bucket(address, bucket_of(settings))) as source:
            try:
                return replace(options, reference=source.read(key), reference_name=name)
            except FileNotFoundError as error:
                raise BadRequest(f"--reference is {name}; there is no such object") from error
    if not Path(name).is_file():
        return options
    try:
        return replace(options, reference=Path(name).read_bytes(), reference_name=name)
    except OSError as error:
        raise CannotRead(f"{name}: {error.strerror or error}") from error
