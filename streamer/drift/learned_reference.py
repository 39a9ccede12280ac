"""A new reference: from the rows of the last hours, from rows that were sent, or a whole document. Blocks.

`learn_groups` learns and `publish` writes; what must not be learnt is refused here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamer.drift.calibration import LEAST_WINDOWS, MAX_ROWS
from streamer.drift.columns import Row
from streamer.drift.config import Plan
from streamer.drift.errors import ReferenceBroken, UpdateRefused
from streamer.drift.reference import ANY, MAX_TOTAL_ROWS, GroupReference, Reference, learn
from streamer.drift.reference_document import document_of, parse, parse_plain_rows
from streamer.drift.reference_file import save

#: Fewer rows of a group are too few to be a reference, but for who insists.
LEAST_ROWS = 500
MAX_HOURS = 24 * 31
_FIELDS = frozenset(("source", "hours", "group", "dry_run", "force"))


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be learnt, of a body that was read."""

    #: Hours back from now; 0 where rows or a document were sent.
    hours: float
    #: One group, or all.
    group: str = ANY
    #: By group; None where they come from the history.
    rows: dict[str, list[Row]] | None = None
    #: A document that is a reference as it is; empty: none.
    document: bytes = b""
    dry_run: bool = False
    force: bool = False


@dataclass(slots=True)
class Lesson:
    """What was learnt: groups with the rows to be stored, and why others were not."""

    groups: dict[str, tuple[GroupReference, Sequence[Row]]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def read_request(body: bytes, *, dry_run: bool, force: bool) -> Request:
    """Read the body of an update. Raises UpdateRefused 400 naming the field."""
    try:
        found = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise UpdateRefused(400, "bad_request", f"The body is not JSON: {error}.") from error
    if isinstance(found, list):
        found = {"rows": found}
    if not isinstance(found, dict):
        raise UpdateRefused(400, "bad_request", "The body is no JSON object.")
    if "groups" in found:
        return Request(0, document=body, dry_run=dry_run, force=force)
    flags = {name: _flag(found, name) for name in ("dry_run", "force")}
    dry_run, force = dry_run or flags["dry_run"], force or flags["force"]
    if "rows" in found:
        try:
            rows = parse_plain_rows(found["rows"])
        except ReferenceBroken as error:
            raise UpdateRefused(400, "invalid_rows", f"Field `rows`: {error}.") from error
        return Request(0, rows=rows, dry_run=dry_run, force=force)
    unknown = sorted(found.keys() - _FIELDS)
    if unknown:
        raise UpdateRefused(
            400,
            "bad_request",
            f"Field `{unknown[0]:.40}` is not known; allowed: {', '.join(sorted(_FIELDS))}.",
        )
    if found.get("source", "last") != "last":
        raise UpdateRefused(
            400, "bad_request", f"Field `source` is {found['source']!r:.40}; allowed: last, or send `rows`."
        )
    hours = found.get("hours", 24)
    if isinstance(hours, bool) or not isinstance(hours, int | float) or not 0 < hours <= MAX_HOURS:
        raise UpdateRefused(
            400, "bad_request", f"Field `hours` is {hours!r:.40}; allowed: more than 0, at most {MAX_HOURS}."
        )
    return Request(float(hours), str(found.get("group", ANY)), dry_run=dry_run, force=force)


def learn_groups(
    found: Iterable[tuple[str, Callable[[], Sequence[Row]]]], count: int, plan: Plan, *, force: bool
) -> Lesson:
    """Learn each group, one after the other: rows of a day are many.

    Raises UpdateRefused 409 when none can be learnt.
    """
    lesson = Lesson()
    most = min(MAX_ROWS, MAX_TOTAL_ROWS // max(1, count))
    for name, read in found:
        rows = read()
        if len(rows) < LEAST_ROWS and not force:
            lesson.skipped[name] = f"{len(rows)} rows; needed are {LEAST_ROWS}"
            continue
        try:
            reference, kept = learn(rows, plan.window_s, plan.alpha, most)
        except ValueError as error:
            lesson.skipped[name] = str(error)
            continue
        if not reference.whole.calibration.calibrated and not force:
            hours = LEAST_WINDOWS * plan.window_s / 3600
            lesson.skipped[name] = (
                f"{reference.span_h:.1f} h of rows; to calibrate, about {hours:g} h are needed"
            )
            continue
        lesson.groups[name] = reference, kept
    if not lesson.groups:
        why = "; ".join(f"{name}: {text}" for name, text in list(lesson.skipped.items())[:3])
        raise UpdateRefused(
            409,
            "too_little_data",
            f"No group can be learnt ({why or 'there are no rows'}); wait, or insist with `force`.",
        )
    return lesson


def publish(path: Path, lesson: Lesson, plan: Plan, *, others: Mapping[str, Any] | None = None) -> Reference:
    """Write the reference and return it as it is read back. Raises OSError.

    ``others`` are groups that stay, as they stand in the present file.
    """
    document = document_of(
        lesson.groups, window_s=plan.window_s, interval_s=plan.interval_s, others=others or {}
    )
    reference = parse(document, window_s=plan.window_s, alpha=plan.alpha)
    save(path, document)
    return reference


def other_groups(path: Path) -> dict[str, Any]:
    """Return the groups of the present file as they stand there; none of one that cannot be read."""
    try:
        groups = json.loads(path.read_bytes()).get("groups")
    except (OSError, ValueError, AttributeError):
        return {}
    return groups if isinstance(groups, dict) else {}


def _flag(found: dict[str, Any], name: str) -> bool:
    value = found.get(name, False)
    if not isinstance(value, bool):
        raise UpdateRefused(400, "bad_request", f"Field `{name}` is {value!r:.40}; allowed: true, false.")
    return value
