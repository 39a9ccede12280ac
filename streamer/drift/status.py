"""Computes the drift status of each group and of all, and the body of ``GET /drift/status``. Pure."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from enum import IntEnum
from typing import Annotated, Literal, NotRequired

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from streamer.drift.change_points import Kind
from streamer.drift.day import HOUR_S, SEASON_S
from streamer.drift.levels import UNKNOWN_DAY
from streamer.drift.monitor import Check, Group, Monitor
from streamer.drift.reference import MIN_ROWS, ColumnScore, GroupReference, Reference
from streamer.drift.severity import Severity

_SEVERITIES: tuple[Severity, ...] = ("minor", "moderate", "severe")
#: At most this many columns are listed as moved.
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


DriftWord = Annotated[str, Field(json_schema_extra={"enum": [status.name.lower() for status in DriftStatus]})]
Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]

DriftWindow = TypedDict(
    "DriftWindow",
    {
        "from": Annotated[Moment | None, Field(description="When the window begins.")],
        "to": Annotated[Moment | None, Field(description="When it ends.")],
        "rows": Annotated[int, Field(ge=0, description="Number of rows in it.")],
        "rows_needed": Annotated[int, Field(description="Number of rows from which a window is scored.")],
        "coverage": Annotated[float, Field(ge=0, le=1, description="Share of its 30 parts that have rows.")],
        "streams": Annotated[int, Field(ge=0, description="Number of streams that the rows come from.")],
    },
)

DriftWindow.__doc__ = "The last window of a group: the rows that are compared with the reference."


class DriftColumn(TypedDict):
    """How far one column of a window is from the reference."""

    name: Annotated[str, Field(description="Name of the column, such as `brightness`.")]
    method: Annotated[str, Field(description="How the distance is computed.")]
    score: Annotated[float | None, Field(description="The distance; null if the column was skipped.")]
    threshold: Annotated[float | None, Field(description="The distance from which the column has moved.")]
    ratio: Annotated[
        float | None,
        Field(
            description="How far the column is from the reference; from 1 on it has drifted. This is the "
            "score divided by the threshold, or what a longer mean or a sudden change says if that is more."
        ),
    ]
    basis: Annotated[
        str,
        Field(description="What the ratio was measured with: `window`, a mean over `1 h`, or a `step`."),
    ]
    drifted: Annotated[bool, Field(description="Whether the ratio is at least 1.")]
    skipped: Annotated[str | None, Field(description="Why the column has no score; null if it has one.")]
    medians: NotRequired[
        Annotated[
            list[float | None],
            Field(
                min_length=2,
                max_length=2,
                description="Median in the reference and in the window; absent for categories.",
            ),
        ]
    ]


class DriftGroup(TypedDict):
    """The drift status of the streams of one name."""

    status: Annotated[DriftWord, Field(description="Status of this group.")]
    since: Annotated[Moment | None, Field(description="When the present drift began; null without drift.")]
    kind: Annotated[
        Kind | None,
        Field(
            description="Whether it began suddenly or gradually; null without drift, or if it is not clear."
        ),
    ]
    changed_at: Annotated[
        Moment | None, Field(description="When the change is estimated to have begun, earlier than `since`.")
    ]
    severity: Annotated[
        Severity | None,
        Field(
            description="By the probability of the change and its effect on detections; null without drift."
        ),
    ]
    recurring: Annotated[
        bool,
        Field(description="Whether the present change has come and gone on earlier days, and is no drift."),
    ]
    cannot_judge: Annotated[
        str | None,
        Field(description="What the reference has not seen and thus cannot judge now; null if it can."),
    ]
    episodes: Annotated[int, Field(ge=0, description="Number of times that this group has begun to drift.")]
    samples: Annotated[
        int, Field(ge=0, description="Number of images that were kept as samples of the present drift.")
    ]
    engine: Annotated[
        Literal["evidently", "builtin"] | None,
        Field(description="What has scored the last window; null if it was not scored."),
    ]
    calibrated: Annotated[
        bool | None,
        Field(description="Whether the thresholds were computed from the reference; null without a score."),
    ]
    reference_model: Annotated[
        str | None, Field(description="Version and digest of the model of the reference; null without one.")
    ]
    hot_last3: Annotated[
        list[bool],
        Field(description="For each of the last three windows whether a column had moved, newest last."),
    ]
    window: Annotated[DriftWindow | None, Field(description="The last window; null before the first check.")]
    moved: Annotated[list[str], Field(description="Columns that have moved, those that moved most first.")]
    columns: Annotated[list[DriftColumn], Field(description="All columns with their scores.")]


class ReferenceGroup(TypedDict):
    """What is normal for the streams of one name."""

    rows: Annotated[int, Field(ge=0, description="Number of rows that the reference was learned from.")]
    span_h: Annotated[float, Field(description="Hours between the first and the last of them.")]
    calibrated: Annotated[bool, Field(description="Whether its thresholds were computed from these rows.")]
    by_time_of_day: Annotated[
        bool,
        Field(
            description="Whether it spans two days, so that windows are compared with the same time of day."
        ),
    ]
    not_seen: Annotated[
        list[str],
        Field(
            description="Times of day that it has not seen, such as `18:00-08:00`; `weekend`, `working days`."
        ),
    ]
    model: Annotated[str, Field(description="Version and digest of the model; empty if it is not known.")]


class DriftReference(TypedDict):
    """The reference that windows are compared with."""

    sha256: Annotated[str, Field(description="SHA-256 of its file, in hexadecimal digits.")]
    created: Annotated[
        str | None, Field(description="When it was learned; null if the file does not say it.")
    ]
    groups: Annotated[
        dict[str, ReferenceGroup], Field(description="Its groups by name; `*` is for all others.")
    ]


class LastCheck(TypedDict):
    """The last time at which all groups were checked."""

    at: Annotated[Moment | None, Field(description="When it was; null before the first check.")]
    seconds: Annotated[float, Field(ge=0, description="How long it took.")]


class MonitorStatus(TypedDict):
    """What follows from the monitor alone."""

    status: Annotated[DriftWord, Field(description="The worst status of all groups.")]
    alert: Annotated[
        bool,
        Field(description="True if two groups drift, if the only group does, or if one drifts severely."),
    ]
    error: Annotated[str | None, Field(description="Why the reference cannot be used; null if it can.")]
    since: Annotated[
        Moment | None, Field(description="When the first group began to drift; null without drift.")
    ]
    severity: Annotated[Severity | None, Field(description="The greatest of all groups; null without drift.")]
    groups: Annotated[
        dict[str, DriftGroup],
        Field(description="The groups by name of their streams. Only keys with scope `admin` see them."),
    ]
    reference: Annotated[
        DriftReference | None,
        Field(description="The reference; null without one. Only keys with scope `admin` see its groups."),
    ]
    last_check: LastCheck
    next_check: Annotated[Moment | None, Field(description="When the groups are checked next.")]


class PublishedStatus(MonitorStatus):
    """What the sampling process publishes."""

    engine: Annotated[
        Literal["evidently", "builtin"],
        Field(description="Which engine decides when a score is near its threshold."),
    ]
    engine_error: Annotated[str | None, Field(description="Why Evidently does not decide; null if it does.")]
    checking: Annotated[bool, Field(description="Whether a check is running.")]
    published_at: Annotated[float, Field(description="When this status was published, in Unix seconds.")]
    window_s: Annotated[float, Field(description="Length of a window in seconds.")]
    step_s: Annotated[float, Field(description="Seconds from one check to the next.")]


@with_config(ConfigDict(json_schema_extra={"required": ["status", "observer"]}))
class DriftStatusDocument(PublishedStatus):
    """Whether the streams still look like their reference. `status` and `observer` are always present, all
    other fields once the sampling process has published a status.
    """

    observer: Annotated[
        str,
        Field(description="State of the sampling process. Unless it is `on`, the rest is its last status."),
    ]


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


def describe(monitor: Monitor, error: str, check_seconds: float) -> MonitorStatus:
    """Return the fields that follow from the monitor; ``check_seconds`` is how long the last check took."""
    on = [group.episode for group in monitor.groups.values() if group.episode.on]
    worst = max((_SEVERITIES.index(episode.severity) for episode in on), default=None)
    return {
        "status": overall_status(monitor, error).name.lower(),
        "alert": needs_attention(monitor),
        "error": error or None,
        "since": _timestamp(min(episode.since or 0.0 for episode in on)) if on else None,
        "severity": _SEVERITIES[worst] if worst is not None else None,
        "groups": {name: _describe_state(monitor, name, group) for name, group in monitor.groups.items()},
        "reference": _describe_reference(monitor.reference),
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


def _describe_reference(reference: Reference | None) -> DriftReference | None:
    if reference is None:
        return None
    return {
        "sha256": reference.sha256,
        "created": reference.created or None,
        "groups": {name: describe_group(group) for name, group in reference.groups.items()},
    }


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
        missing = "no weekend" if seen.working_days else "no working day"
        return f"The reference has {missing}; thresholds are {UNKNOWN_DAY:g} times as wide today."
    return None


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")


def _timestamp(unix_s: float) -> str | None:
    """Return a time as ISO 8601 in UTC; None for 0, which means never."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="seconds") if unix_s else None
