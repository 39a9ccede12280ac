"""What ``GET /drift/status`` shows, and the one word for it. Pure."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from streamer.drift.calibration import LEAST_ROWS
from streamer.drift.drift_state import Word
from streamer.drift.episode import SEVERE, severity
from streamer.drift.monitor import Check, Group, Monitor
from streamer.drift.reference import Reference
from streamer.drift.reference_scorer import ColumnScore

#: Columns named as what has moved.
MAX_MOVED = 5


def word_of(monitor: Monitor, error: str) -> Word:
    """Return the word for all groups; ``error`` says why there is no reference though there should be."""
    if error:
        return Word.ERROR
    if monitor.reference is None:
        return Word.NO_REFERENCE
    words = [group_word(group) for group in monitor.groups.values()]
    # Groups without a reference of their own say nothing while others do.
    return max(words, default=Word.INSUFFICIENT_DATA)


def group_word(group: Group) -> Word:
    """Return the word for one group."""
    if group.episode.on:
        return Word.DRIFT
    check = group.check
    if check is None or check.outcome == "insufficient_data":
        return Word.INSUFFICIENT_DATA
    if check.outcome == "no_reference":
        return Word.NO_REFERENCE
    return Word.STALE_REFERENCE if check.stale else Word.OK


def wants_attention(monitor: Monitor) -> bool:
    """Whether the fleet is in drift: two groups are, or the only one is, or one severely.

    Each group has its rare false alarms; a fleet of 25 would have one a day.
    """
    on = [group.episode for group in monitor.groups.values() if group.episode.on]
    return len(on) >= min(2, len(monitor.groups)) > 0 or any(episode.worst >= SEVERE for episode in on)


def describe(monitor: Monitor, error: str) -> dict[str, Any]:
    """Return the parts that the monitor knows."""
    on = [group.episode for group in monitor.groups.values() if group.episode.on]
    worst = max((episode.worst for episode in on), default=None)
    return {
        "status": word_of(monitor, error).name.lower(),
        "alert": wants_attention(monitor),
        "error": error or None,
        "since": _timestamp(min(episode.since or 0.0 for episode in on)) if on else None,
        "severity": severity(worst) if worst is not None else None,
        "groups": {name: _describe_group(monitor, name, group) for name, group in monitor.groups.items()},
        "reference": _describe_reference(monitor.reference),
        "last_check": {"at": _timestamp(monitor.last_check)},
        "next_check": _timestamp(monitor.next_check),
    }


def moved(check: Check) -> list[ColumnScore]:
    """Return the columns that have moved most, over their thresholds alone."""
    over = [column for column in check.columns if column.ratio >= 1]
    return sorted(over, key=lambda column: -column.ratio)[:MAX_MOVED]


def _describe_group(monitor: Monitor, name: str, group: Group) -> dict[str, Any]:
    check, episode = group.check, group.episode
    known = monitor.reference.of(name) if monitor.reference is not None else None
    return {
        "status": group_word(group).name.lower(),
        "since": _timestamp(episode.since or 0.0),
        "severity": severity(episode.worst) if episode.on else None,
        "episodes": group.episodes,
        "samples": group.samples,
        "engine": check.engine if check is not None and check.yardstick is not None else None,
        "calibrated": check.yardstick.calibration.calibrated if check and check.yardstick else None,
        "reference_model": known.model if known is not None else None,
        "hot_last3": [ratio >= 1 for ratio in episode.ratios],
        "window": _describe_window(check),
        "moved": [column.name for column in moved(check)] if check is not None else [],
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
        "rows_needed": LEAST_ROWS,
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
