"""Computes the drift status of each group and of all, and the body of ``GET /drift/status``. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime

from streamer.drift.day import HOUR_S, SEASON_S, kind_of_day
from streamer.drift.monitor import Check, Group, Monitor
from streamer.drift.reference import MIN_ROWS, ColumnScore, GroupReference, Reference
from streamer.drift.rolling_state import RollingStatus
from streamer.drift.severity import Severity
from streamer.drift.status_document import (
    DriftColumn,
    DriftGroup,
    DriftReference,
    DriftStatus,
    DriftWindow,
    MonitorStatus,
    ReferenceGroup,
)

_SEVERITIES: tuple[Severity, ...] = ("minor", "moderate", "severe")
#: At most this many columns are listed as moved.
MAX_MOVED = 5


def overall_status(monitor: Monitor, error: str) -> DriftStatus:
    """Return the status of all groups; ``error`` says why the reference cannot be used, or is empty."""
    if error:
        return DriftStatus.ERROR
    if monitor.reference is None:
        return DriftStatus.NO_REFERENCE
    found = [group_status(group) for group in monitor.groups.values()]
    # NO_REFERENCE is small, so groups without a reference do not hide the others.
    return max(found, default=DriftStatus.INSUFFICIENT_DATA)


def group_status(group: Group) -> DriftStatus:
    """Return the status of one group."""
    if group.episode.on:
        return DriftStatus.DRIFT
    check = group.check
    if check is None or check.outcome in ("insufficient_data", "not_seen"):
        return DriftStatus.INSUFFICIENT_DATA
    if check.outcome == "no_reference":
        return DriftStatus.NO_REFERENCE
    return DriftStatus.STALE_REFERENCE if check.stale else DriftStatus.OK


def needs_attention(monitor: Monitor) -> bool:
    """Return whether to alert: two groups are in drift, or the only group is, or one is in severe drift.

    One of several groups in drift is not enough: false positives are rare for each group, but 25 groups
    together would have one a day.
    """
    on = [group.episode for group in monitor.groups.values() if group.episode.on]
    return len(on) >= min(2, len(monitor.groups)) > 0 or any(episode.severity == "severe" for episode in on)


def describe(
    monitor: Monitor, error: str, check_seconds: float, rolling: Mapping[str, RollingStatus] | None = None
) -> MonitorStatus:
    """Return the fields that follow from the monitor.

    ``check_seconds`` is how long the last check took, ``rolling`` what rolling references of groups hold.
    """
    on = [group.episode for group in monitor.groups.values() if group.episode.on]
    worst = max((_SEVERITIES.index(episode.severity) for episode in on), default=None)
    return {
        "status": overall_status(monitor, error).name.lower(),
        "alert": needs_attention(monitor),
        "error": error or None,
        "since": _timestamp(min(episode.since or 0.0 for episode in on)) if on else None,
        "severity": _SEVERITIES[worst] if worst is not None else None,
        "groups": {name: _describe_state(monitor, name, group) for name, group in monitor.groups.items()},
        "reference": _describe_reference(monitor.reference, rolling or {}),
        "last_check": {"at": _timestamp(monitor.last_check), "seconds": round(check_seconds, 3)},
        "next_check": _timestamp(monitor.next_check),
    }


def moved_columns(check: Check) -> list[ColumnScore]:
    """Return the columns that have reached their thresholds, those that have moved most first."""
    over = [column for column in check.columns if column.ratio >= 1]
    return sorted(over, key=lambda column: -column.ratio)[:MAX_MOVED]


def _describe_state(monitor: Monitor, name: str, group: Group) -> DriftGroup:
    check, episode = group.check, group.episode
    reference = monitor.reference.of(name) if monitor.reference is not None else None
    return {
        "status": group_status(group).name.lower(),
        "since": _timestamp(episode.since or 0.0) if episode.on else None,
        "kind": episode.onset.kind if episode.on and episode.onset else None,
        "changed_at": _timestamp(episode.onset.at) if episode.on and episode.onset else None,
        "severity": episode.severity if episode.on else None,
        "recurring": episode.recurring,
        "cannot_judge": _cannot_judge(check, reference),
        "episodes": group.episodes,
        "samples": group.samples,
        "engine": check.engine if check is not None and check.scorer is not None else None,
        "calibrated": check.scorer.calibrated if check and check.scorer else None,
        "reference_model": reference.model if reference is not None else None,
        "hot_last3": [ratio >= 1 for ratio in episode.ratios],
        "window": _describe_window(check),
        "moved": [column.name for column in moved_columns(check)] if check is not None else [],
        "columns": [_describe_column(column) for column in check.columns] if check is not None else [],
    }


def _describe_window(check: Check | None) -> DriftWindow | None:
    if check is None:
        return None
    window = check.window
    return {
        "from": _timestamp(window.begin),
        "to": _timestamp(window.end),
        "rows": len(window.rows),
        "rows_needed": MIN_ROWS,
        "coverage": round(window.coverage, 2),
        "streams": len({row.session for row in window.rows}),
    }


def _describe_column(column: ColumnScore) -> DriftColumn:
    described: DriftColumn = {
        "name": column.name,
        "method": column.method,
        "score": _rounded(column.score),
        "threshold": _rounded(column.threshold),
        "ratio": _rounded(column.ratio),
        "basis": column.basis,
        "drifted": column.ratio >= 1,
        "skipped": column.skipped or None,
    }
    if column.medians is not None:
        described["medians"] = [_rounded(value) for value in column.medians]
    return described


def _describe_reference(
    reference: Reference | None, rolling: Mapping[str, RollingStatus]
) -> DriftReference | None:
    if reference is None:
        return None
    groups = {name: describe_group(group) for name, group in reference.groups.items()}
    for name in groups.keys() & rolling.keys():
        groups[name]["rolling"] = rolling[name]
    return {"sha256": reference.sha256, "created": reference.created or None, "groups": groups}


def describe_group(group: GroupReference) -> ReferenceGroup:
    """Return what is said of the reference of one group."""
    return {
        "rows": group.rows,
        "span_h": round(group.span_h, 2),
        "calibrated": group.calibrated,
        "by_time_of_day": group.calibrated and group.span_h * HOUR_S >= SEASON_S,
        "not_seen": group.limits.seen.gaps if group.limits is not None else [],
        "model": group.model,
    }


def thresholds_now(group: GroupReference) -> dict[str, float]:
    """Return the thresholds at the time of day at which a reference ends; without what is not judged."""
    thresholds = group.at(float(group.table.at[-1])).thresholds
    return {name: float(f"{value:.4g}") for name, value in thresholds.items() if math.isfinite(value)}


def _cannot_judge(check: Check | None, reference: GroupReference | None) -> str | None:
    """Return what the reference does not know of the present; None if it knows it."""
    seen = reference.limits.seen if reference is not None and reference.limits is not None else None
    if check is None or seen is None:
        return None
    if check.outcome == "not_seen":
        times = ", ".join(gap for gap in seen.gaps if gap[0].isdigit())
        return f"The reference has no rows of {times}; nothing is compared at these times."
    if not seen.knows_day(check.window.end):
        kind = kind_of_day(check.window.end).removesuffix("s")
        return f"The reference has no {kind}, so whatever it knows of any time of day is accepted today."
    return None


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")


def _timestamp(unix_s: float) -> str | None:
    """Return a time as ISO 8601 in UTC; None for 0, which means never."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="seconds") if unix_s else None
