"""Defines what is kept of a rolling reference from one process to the next, and its JSON form. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

from streamer.drift.reference import GroupReference
from streamer.drift.rolling import (
    DELAY_S,
    Period,
    SkippedDay,
    days_between,
    missing_days,
    next_midnight,
    total_hours,
)

SCHEMA = 1
#: Skipped days that are remembered.
MAX_SKIPPED = 14

Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class SkippedDayStatus(TypedDict):
    """A day that was not added to a rolling reference."""

    date: Annotated[str, Field(json_schema_extra={"format": "date"}, description="Its local date.")]
    reason: Annotated[str, Field(description="Why it was not added.")]


class RollingStatus(TypedDict):
    """What a rolling reference of one group holds (`DRIFT_ROLLING_DAYS`)."""

    days: Annotated[float, Field(ge=0, description="How many days it holds.")]
    most_days: Annotated[int, Field(description="How many it may hold.")]
    since: Annotated[Moment | None, Field(description="Begin of its oldest day.")]
    until: Annotated[Moment | None, Field(description="End of its newest day.")]
    first_made: Annotated[Moment, Field(description="When the first reference was made, or taken over.")]
    missing_weekdays: Annotated[list[str], Field(description="Weekdays of which it holds no day.")]
    accepted: Annotated[int, Field(ge=0, description="Accepted days that it does not hold yet.")]
    next_day_at: Annotated[Moment, Field(description="When the next day may be added.")]
    skipped: Annotated[
        list[SkippedDayStatus], Field(description="The last days that were not added, newest last.")
    ]
    waiting: Annotated[str | None, Field(description="Why accepted days are not in it yet; null otherwise.")]


@dataclass(slots=True)
class RollingGroup:
    """Holds what a rolling reference of one group is made of."""

    #: Fingerprints of the references that it may be: the present one, and one that is being written.
    fingerprints: list[str]
    #: When the first reference was made, or taken over, unix seconds.
    first_made: float
    #: Begin of the first day that was neither added nor skipped.
    next_day: float
    #: Days of the present reference, and accepted ones that it does not hold yet.
    days: list[Period]
    accepted: list[Period] = field(default_factory=list)
    skipped: list[SkippedDay] = field(default_factory=list)
    #: Whether the last day that could be compared with the first reference was too far from it.
    far: bool = False
    #: Why accepted days are not in the reference; empty if they are.
    waiting: str = ""

    @classmethod
    def begin(cls, reference: GroupReference, now: float) -> RollingGroup:
        """Begin with a reference that a person has made; days count from now on."""
        at = reference.table.at
        days = days_between(float(at[0]), float(at[-1])) if reference.calibrated else []
        return cls([fingerprint(reference)], now, next_midnight(now), days)

    def skip(self, day: Period, reason: str) -> None:
        """Remember why a day was not added."""
        self.skipped = [*self.skipped, SkippedDay(day.date, reason)][-MAX_SKIPPED:]

    def describe(self, most_days: int) -> RollingStatus:
        """Return its status."""
        return {
            "days": round(total_hours(self.days) / 24, 1),
            "most_days": most_days,
            "since": _moment(self.days[0].begin) if self.days else None,
            "until": _moment(self.days[-1].end) if self.days else None,
            "first_made": _moment(self.first_made),
            "missing_weekdays": missing_days(self.days),
            "accepted": len(self.accepted),
            "next_day_at": _moment(next_midnight(self.next_day) + DELAY_S),
            "skipped": [{"date": day.date, "reason": day.reason} for day in self.skipped],
            "waiting": self.waiting or None,
        }


def fingerprint(reference: GroupReference) -> str:
    """Return a digest of a group's rows, from which a replaced reference is recognised."""
    digest = hashlib.sha256(reference.model.encode())
    digest.update(reference.table.at.tobytes())
    digest.update(reference.table.numbers.tobytes())
    return digest.hexdigest()[:16]


def dump(groups: Mapping[str, RollingGroup]) -> bytes:
    """Return the file of these groups."""
    document = {
        "schema": SCHEMA,
        "groups": {
            name: {
                "fingerprints": group.fingerprints,
                "first_made": group.first_made,
                "next_day": group.next_day,
                "days": [[day.begin, day.end, day.rows] for day in group.days],
                "accepted": [[day.begin, day.end, day.rows] for day in group.accepted],
                "skipped": [[day.date, day.reason] for day in group.skipped],
                "far": group.far,
                "waiting": group.waiting,
            }
            for name, group in groups.items()
        },
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def parse(text: bytes) -> dict[str, RollingGroup]:
    """Return the groups of a file. Raises ValueError if it is damaged or of another release."""
    try:
        document = json.loads(text)
        if document["schema"] != SCHEMA:
            raise ValueError(f"schema is {document['schema']!r:.20}; this release reads {SCHEMA}")
        return {str(name): _parse_group(group) for name, group in document["groups"].items()}
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _parse_group(stored: Mapping[str, Any]) -> RollingGroup:
    return RollingGroup(
        [str(each) for each in stored["fingerprints"]],
        float(stored["first_made"]),
        float(stored["next_day"]),
        [Period(float(begin), float(end), int(rows)) for begin, end, rows in stored["days"]],
        [Period(float(begin), float(end), int(rows)) for begin, end, rows in stored["accepted"]],
        [SkippedDay(str(date), str(reason)) for date, reason in stored["skipped"]],
        bool(stored["far"]),
        str(stored["waiting"]),
    )


def _moment(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="seconds")
