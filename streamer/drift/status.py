"""The drift status: one value for each group and for all, and the document behind ``GET /drift/status``.
Pure.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any

from streamer.drift.calibration import MIN_ROWS
from streamer.drift.episode import SEVERE, severity
from streamer.drift.monitor import Check, Group, Monitor
from streamer.drift.reference import ColumnScore, Reference

#: Columns listed as having moved most.
MAX_MOVED = 5


class DriftStatus(IntEnum):
    """The status as a number in shared memory. The status of several groups is the greatest of theirs."""

    DISABLED = 0
    NO_REFERENCE = 1
    INSUFFICIENT_DATA = 2
    OK = 3
    STALE_REFERENCE = 4
    DRIFT = 5
    ERROR = 6


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
    if check is None or check.outcome == "insufficient_data":
        return DriftStatus.INSUFFICIENT_DATA
    if check.outcome == "no_reference":
        return DriftStatus.NO_REFERENCE
    return DriftStatus.STALE_REFERENCE if check.stale else DriftStatus.OK


def wants_attention(monitor: Monitor) -> bool:
    """Whether an alert is due: two groups are in drift, or the only group is, or one is severely.

    A single group in drift is no alert: false positives are rare for each group, but a fleet of 25 groups
    would have one a day.
    """
    on = [group.episode for group in monitor.groups.values() if group.episode.on]
    return len(on) >= min(2, len(monitor.groups)) > 0 or any(episode.worst >= SEVERE for episode in on)


def describe(monitor: Monitor, error: str) -> dict[str, Any]:
    """Return those fields of the status document that follow from the monitor."""
    on = [group.episode for group in monitor.groups.values() if group.episode.on]
    worst = max((episode.worst for episode in on), default=None)
    return {
        "status": overall_status(monitor, error).name.lower(),
        "alert": wants_attention(monitor),
        "error": error or None,
        "since": _timestamp(min(episode.since or 0.0 for episode in on)) if on else None,
        "severity": severity(worst) if worst is not None else None,
        "groups": {name: _describe_group(monitor, name, group) for name, group in monitor.groups.items()},
        "reference": _describe_reference(monitor.reference),
        "last_check": {"at": _timestamp(monitor.last_check)},
        "next_check": _timestamp(monitor.next_check),
    }


def moved_columns(check: Check) -> list[ColumnScore]:
    """Return the columns over their thresholds, those that have moved most first."""
    over = [column for column in check.columns if column.ratio >= 1]
    return sorted(over, key=lambda column: -column.ratio)[:MAX_MOVED]


def _describe_group(monitor: Monitor, name: str, group: Group) -> dict[str, Any]:
    check, episode = group.check, group.episode
    reference = monitor.reference.of(name) if monitor.reference is not None else None
    return {
        "status": group_status(group).name.lower(),
        "since": _timestamp(episode.since or 0.0),
        "severity": severity(episode.worst) if episode.on else None,
        "episodes": group.episodes,
        "samples": group.samples,
        "engine": check.engine if check is not None and check.scorer is not None else None,
        "calibrated": check.scorer.calibration.calibrated if check and check.scorer else None,
        "reference_model": reference.model if reference is not None else None,
        "hot_last3": [ratio >= 1 for ratio in episode.ratios],
        "window": _describe_window(check),
        "moved": [column.name for column in moved_columns(check)] if check is not None else [],
        "columns": [_describe_column(column) for column in check.columns] if check is not None else [],
    }


def _describe_window(check: Check | None) -> dict[str, Any] | None:
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


def _describe_column(column: ColumnScore) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": column.name,
        "method": column.method,
        "score": _rounded(column.score),
        "threshold": _rounded(column.threshold),
        "ratio": _rounded(column.ratio),
        "drifted": column.ratio >= 1,
        "skipped": column.skipped or None,
    }
    if column.medians is not None:
        described["medians"] = [_rounded(value) for value in column.medians]
    return described


def _describe_reference(reference: Reference | None) -> dict[str, Any] | None:
    if reference is None:
        return None
    return {
        "sha256": reference.sha256,
        "created": reference.created or None,
        "groups": {
            name: {
                "rows": group.rows,
                "span_h": round(group.span_h, 2),
                "calibrated": group.whole.calibration.calibrated,
                "blocks": group.whole.calibration.blocks,
                "buckets": sorted(group.seasons),
                "model": group.model,
            }
            for name, group in reference.groups.items()
        },
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")


def _timestamp(unix_s: float) -> str | None:
    """Return ISO 8601 in UTC; None for 0, which means never."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="seconds") if unix_s else None
