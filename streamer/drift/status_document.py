"""Defines the body of ``GET /drift/status``, field by field; `status` fills it."""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Literal, NotRequired

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from streamer.drift.change_points import Kind
from streamer.drift.rolling_state import RollingStatus
from streamer.drift.severity import Severity


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
            description="Times of day that it has not seen, such as `18:00-08:00`, and kinds of days: "
            "`working days`, `Saturday`, `Sunday`."
        ),
    ]
    model: Annotated[str, Field(description="Version and digest of the model; empty if it is not known.")]
    rolling: NotRequired[
        Annotated[RollingStatus, Field(description="Its days, if it grows by itself (`DRIFT_ROLLING_DAYS`).")]
    ]


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
