"""Turns the result of an evaluation into JSON, and into tables for a terminal. Pure."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from streamer.core.terminal import Table
from streamer.drift.status import describe_group
from streamer.drift_evaluation.fleet_result import FleetResult
from streamer.drift_evaluation.period import local_text
from streamer.drift_evaluation.stream_result import FoundEpisode, StreamResult, Verdict

#: Increase this number when a field changes its meaning.
SCHEMA = 1
#: Rows of a table on the terminal.
_SHOWN = 40
_ORDER = {Verdict.DRIFT: 0, Verdict.CANNOT_JUDGE: 1, Verdict.NONE: 2}


def document_of(result: FleetResult) -> dict[str, Any]:
    """Return the result in JSON types; docs/drift.md lists the fields. Times are ISO 8601 in UTC."""
    return {
        "schema": SCHEMA,
        "verdict": result.verdict.value,
        "summary": result.summary,
        "place": result.place,
        "period": {"from": _moment(result.period.begin), "to": _moment(result.period.end)},
        "reference": result.reference,
        "zone": result.zone,
        "streams_in_drift": len(result.of(Verdict.DRIFT)),
        "streams_needed": result.needed,
        "expected_by_chance": round(result.expected_by_chance, 3),
        "judged_stream_days": round(result.judged_days, 2),
        "engine_problem": result.engine_problem or None,
        "together": [
            {
                "from": _moment(each.begin),
                "to": _moment(each.end),
                "streams": list(each.streams),
                "replicas": list(each.replicas),
                "columns": list(each.columns),
            }
            for each in result.together()
        ],
        "replicas": {
            name: {
                "first": _moment(replica.first),
                "last": _moment(replica.last),
                "files": replica.files,
                "streams": sorted(replica.streams),
            }
            for name, replica in sorted(result.replicas.items())
        },
        "missing_replicas": result.missing(),
        "files_left_out": result.left_out,
        "file_notes": list(result.file_notes),
        "streams": {stream.stream: _stream(result, stream) for stream in in_order(result)},
    }


def in_order(result: FleetResult) -> list[StreamResult]:
    """Return the streams, those in drift first, the worst of them first."""

    def key(stream: StreamResult) -> tuple[int, float, str]:
        worst = max((episode.worst for episode in stream.episodes), default=0.0)
        return _ORDER[stream.verdict], -worst, stream.stream

    return sorted(result.streams, key=key)


def tables_of(result: FleetResult) -> list[Table]:
    """Return the verdict and the streams as tables for a terminal."""
    streams = in_order(result)
    rows = tuple(
        (
            stream.stream,
            stream.verdict.value.replace("_", " "),
            str(stream.rows),
            str(len(stream.replicas)),
            what_of(stream),
        )
        for stream in streams[:_SHOWN]
    )
    more = len(streams) - _SHOWN
    note = f"and {more} more" if more > 0 else ""
    title = f"{result.verdict.value.replace('_', ' ').upper()}: {result.summary}"
    head = ("STREAM", "VERDICT", "ROWS", "REPLICAS", "WHAT")
    return [Table(title, head, rows, frozenset({"ROWS", "REPLICAS"}), note)]


def text_of(result: FleetResult) -> str:
    """Return the same as text."""
    (table,) = tables_of(result)
    lines = [table.title, f"{result.period}, compared with {result.reference}"]
    lines += ["  ".join(row) for row in table.rows]
    return "\n".join([*lines, table.note] if table.note else lines)


def what_of(stream: StreamResult) -> str:
    """Return in a few words what was found about a stream."""
    if stream.verdict is Verdict.CANNOT_JUDGE:
        return stream.reason
    if not stream.episodes:
        worst = max((window.ratio for window in stream.windows if window.outcome == "scored"), default=0.0)
        return f"at most {worst:.2f} of a threshold"
    worst_episode = max(stream.episodes, key=lambda episode: episode.worst)
    columns = ", ".join(column.name for column in worst_episode.moved[:3])
    more = f", {len(stream.episodes)} episodes" if len(stream.episodes) > 1 else ""
    return f"{worst_episode.severity} since {local_text(worst_episode.since)}: {columns}{more}"


def _stream(result: FleetResult, stream: StreamResult) -> dict[str, Any]:
    return {
        "verdict": stream.verdict.value,
        "reason": stream.reason or None,
        "rows": stream.rows,
        "repeated_rows": stream.repeated,
        "replicas": {
            name: {"rows": count, **_span(stream, name)} for name, count in sorted(stream.replicas.items())
        },
        "models": dict(stream.models.most_common()),
        "windows": len(stream.windows),
        "windows_scored": stream.scored,
        "gaps": [{"from": _moment(begin), "to": _moment(end)} for begin, end in stream.gaps],
        "reference": describe_group(stream.reference) if stream.reference is not None else None,
        "episodes": [_episode(episode) for episode in stream.episodes],
        "samples": result.samples.get(stream.stream, []),
        "notes": stream.notes,
    }


def _span(stream: StreamResult, replica: str) -> dict[str, str]:
    if replica not in stream.spans:
        return {}
    first, last = stream.spans[replica]
    return {"first": _moment(first), "last": _moment(last)}


def _episode(episode: FoundEpisode) -> dict[str, Any]:
    return {
        "since": _moment(episode.since),
        "until": None if episode.goes_on else _moment(episode.until),
        "severity": episode.severity,
        "ratio": _number(episode.worst),
        "kind": episode.kind,
        "changed_at": None if episode.changed_at is None else _moment(episode.changed_at),
        "engine": episode.engine,
        "moved": [
            {
                "name": column.name,
                "ratio": _number(column.ratio),
                "basis": column.basis,
                "medians": None if column.medians is None else [_number(value) for value in column.medians],
            }
            for column in episode.moved
        ],
    }


def _moment(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="seconds")


def _number(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None
