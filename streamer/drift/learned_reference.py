"""A reference that is learned from the first windows, and the file in which it is kept.

Rows come from the history of the last hours or from the request. Data that should not become a reference is
refused here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamer.core.durable import write_durably
from streamer.drift.calibration import MAX_ROWS, MIN_WINDOWS
from streamer.drift.errors import ReferenceBroken, UpdateRefused
from streamer.drift.reference import ANY, MAX_TOTAL_ROWS, GroupReference, Reference, learn
from streamer.drift.reference_document import document_of, parse, parse_plain_rows
from streamer.drift.rows import Row

#: A group with fewer rows is not learned, except with ``force``.
MIN_GROUP_ROWS = 500
MAX_HOURS = 24 * 31
_FIELDS = frozenset(("source", "hours", "group", "dry_run", "force"))


@dataclass(frozen=True, slots=True)
class UpdateRequest:
    """What to learn, parsed from the body of a request."""

    #: Hours of history to learn from; 0 when the body holds rows or a document.
    hours: float
    #: Name of one group, or ``ANY`` for all.
    group: str = ANY
    #: Rows by group; None to use the history.
    rows: dict[str, list[Row]] | None = None
    #: A complete reference document; empty when there is none.
    document: bytes = b""
    dry_run: bool = False
    force: bool = False


@dataclass(slots=True)
class LearnedReference:
    """The learned groups with the rows to store, and for all other groups why they were skipped."""

    groups: dict[str, tuple[GroupReference, Sequence[Row]]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def read_request(body: bytes, *, dry_run: bool, force: bool) -> UpdateRequest:
    """Parse the body of an update. Raises UpdateRefused 400 naming the field."""
    try:
        found = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise UpdateRefused(400, "bad_request", f"The body is not JSON: {error}.") from error
    if isinstance(found, list):
        found = {"rows": found}
    if not isinstance(found, dict):
        raise UpdateRefused(400, "bad_request", "The body is no JSON object.")
    if "groups" in found:
        return UpdateRequest(0, document=body, dry_run=dry_run, force=force)
    flags = {name: _flag(found, name) for name in ("dry_run", "force")}
    dry_run, force = dry_run or flags["dry_run"], force or flags["force"]
    if "rows" in found:
        try:
            rows = parse_plain_rows(found["rows"])
        except ReferenceBroken as error:
            raise UpdateRefused(400, "invalid_rows", f"Field `rows`: {error}.") from error
        return UpdateRequest(0, rows=rows, dry_run=dry_run, force=force)
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
    return UpdateRequest(float(hours), str(found.get("group", ANY)), dry_run=dry_run, force=force)


def learn_groups(
    sources: Iterable[tuple[str, Callable[[], Sequence[Row]]]],
    count: int,
    *,
    window_s: float,
    alpha: float,
    force: bool,
) -> LearnedReference:
    """Learn ``count`` groups one after the other, so that the rows of only one are in memory.

    ``sources`` yields each group's name and a function that reads its rows. Raises UpdateRefused 409 when no
    group can be learned.
    """
    learned = LearnedReference()
    max_rows = min(MAX_ROWS, MAX_TOTAL_ROWS // max(1, count))
    for name, read in sources:
        rows = read()
        if len(rows) < MIN_GROUP_ROWS and not force:
            learned.skipped[name] = f"{len(rows)} rows; needed are {MIN_GROUP_ROWS}"
            continue
        try:
            reference, kept = learn(rows, window_s, alpha, max_rows)
        except ValueError as error:
            learned.skipped[name] = str(error)
            continue
        if not reference.whole.calibration.calibrated and not force:
            hours = MIN_WINDOWS * window_s / 3600
            learned.skipped[name] = (
                f"{reference.span_h:.1f} h of rows; to calibrate, about {hours:g} h are needed"
            )
            continue
        learned.groups[name] = reference, kept
    if not learned.groups:
        why = "; ".join(f"{name}: {text}" for name, text in list(learned.skipped.items())[:3])
        raise UpdateRefused(
            409,
            "too_little_data",
            f"No group can be learnt ({why or 'there are no rows'}); wait, or insist with `force`.",
        )
    return learned


def _flag(found: dict[str, Any], name: str) -> bool:
    value = found.get(name, False)
    if not isinstance(value, bool):
        raise UpdateRefused(400, "bad_request", f"Field `{name}` is {value!r:.40}; allowed: true, false.")
    return value


KEPT = 5
MAX_BYTES = 64 << 20


def load(path: Path, *, window_s: float, alpha: float) -> Reference | None:
    """Return the reference at ``path``; None without a file. Raises ReferenceBroken naming the file."""
    try:
        text = path.read_bytes() if path.stat().st_size <= MAX_BYTES else None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ReferenceBroken(f"{path}: {error.strerror or error}") from error
    if text is None:
        raise ReferenceBroken(f"{path}: larger than {MAX_BYTES} bytes")
    try:
        return parse(text, window_s=window_s, alpha=alpha)
    except ReferenceBroken as error:
        raise ReferenceBroken(f"{path}: {error}") from error


def save(path: Path, document: bytes) -> None:
    """Replace the file; the previous one becomes `NAME.1`, and so on up to `NAME.5`. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    old = [path.with_name(f"{path.name}.{number}") for number in range(1, KEPT + 1)]
    if path.exists():
        for older, newer in zip(reversed(old[1:]), reversed(old[:-1]), strict=True):
            if newer.exists():
                newer.replace(older)
        # A hard link instead of a rename: there is a reference at ``path`` at every moment.
        old[0].unlink(missing_ok=True)
        os.link(path, old[0])
    write_durably(path, document, path.with_name(f".{path.name}.new"))


def publish(
    path: Path,
    learned: LearnedReference,
    *,
    window_s: float,
    alpha: float,
    interval_s: float,
    others: Mapping[str, Any] | None = None,
) -> Reference:
    """Write a learned reference and return it as parsed from the file's content. Raises OSError.

    ``others`` are the groups that stay unchanged, as :func:`other_groups` returns them.
    """
    document = document_of(learned.groups, window_s=window_s, interval_s=interval_s, others=others or {})
    reference = parse(document, window_s=window_s, alpha=alpha)
    save(path, document)
    return reference


def other_groups(path: Path) -> dict[str, Any]:
    """Return the groups of the present file in its JSON form; none when it cannot be read."""
    try:
        groups = json.loads(path.read_bytes()).get("groups")
    except (OSError, ValueError, AttributeError):
        return {}
    return groups if isinstance(groups, dict) else {}
