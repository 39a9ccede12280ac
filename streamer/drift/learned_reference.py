"""Learns a reference from rows, and keeps the reference in a file.

The rows come from the history of the last hours or from the body of a request. This module refuses data that
should not become a reference.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, SkipValidation, ValidationError

from streamer.core.durable import write_durably
from streamer.drift.errors import ReferenceBroken, UpdateRefused
from streamer.drift.reference import (
    ANY,
    MAX_ROWS,
    MAX_TOTAL_ROWS,
    MIN_WINDOWS,
    GroupReference,
    Reference,
    learn,
)
from streamer.drift.reference_document import PLAIN_ROW_SCHEMA, document_of, parse, parse_plain_rows
from streamer.drift.rows import Row

#: A group with fewer rows is not learned, except with ``force``.
MIN_GROUP_ROWS = 500
MAX_HOURS = 24 * 31
#: Texts with which errors name the allowed values of a field.
_ALLOWED = {
    "dry_run": "true, false",
    "force": "true, false",
    "source": "last, or send `rows`",
    "hours": f"more than 0, at most {MAX_HOURS}",
}


class UpdateFlags(BaseModel):
    """Flags of every update. They may be in the query, too."""

    model_config = ConfigDict(strict=True, frozen=True)

    dry_run: bool = Field(False, description="Only say what would be learned; keep the reference in use.")
    force: bool = Field(
        False, description="Learn from few rows, and also while streams drift, which makes the drift normal."
    )


class HistoryUpdate(UpdateFlags):
    """Learn from the rows of the last hours."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    source: Literal["last"] = Field("last", description="Where the rows come from: the last hours.")
    hours: float = Field(
        24, gt=0, le=MAX_HOURS, allow_inf_nan=False, description="How many hours to learn from."
    )
    group: Annotated[str, PlainValidator(str, json_schema_input_type=str)] = Field(
        ANY, description="Name of the streams that are learned; `*` for all, each name by itself."
    )


class RowsUpdate(UpdateFlags):
    """Learn from the rows that are sent."""

    # `parse_plain_rows` checks them: its errors name the row and the column.
    rows: Annotated[list[Any], SkipValidation] = Field(
        json_schema_extra={"items": PLAIN_ROW_SCHEMA, "minItems": 1}, description="The rows to learn from."
    )


_Model = TypeVar("_Model", bound=UpdateFlags)


@dataclass(frozen=True, slots=True)
class UpdateRequest:
    """Says what to learn, as parsed from the body of a request."""

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
    """Holds the learned groups with their rows to store, and the reason for each group that was skipped."""

    groups: dict[str, tuple[GroupReference, Sequence[Row]]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def read_request(body: bytes, *, dry_run: bool, force: bool) -> UpdateRequest:
    """Parse the body of an update. Raises UpdateRefused 400, which names the wrong field."""
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
    if "rows" in found:
        sent = _validate(RowsUpdate, found)
        try:
            rows = parse_plain_rows(sent.rows)
        except ReferenceBroken as error:
            raise UpdateRefused(400, "invalid_rows", f"Field `rows`: {error}.") from error
        return UpdateRequest(0, rows=rows, dry_run=dry_run or sent.dry_run, force=force or sent.force)
    asked = _validate(HistoryUpdate, found)
    return UpdateRequest(
        asked.hours, asked.group, dry_run=dry_run or asked.dry_run, force=force or asked.force
    )


def _validate(model: type[_Model], found: dict[str, Any]) -> _Model:
    """Return the body as ``model``.

    Raises UpdateRefused 400, which names one wrong field: a wrong flag if there is one, else an unknown
    field, else another wrong field.
    """
    known = {name: found[name] for name in model.model_fields if name in found}
    unknown = sorted(found.keys() - known.keys()) if model.model_config.get("extra") == "forbid" else []
    checked: _Model | None = None
    wrong: list[str] = []
    try:
        checked = model.model_validate(known)
    except ValidationError as error:
        wrong = [str(fault["loc"][0]) for fault in error.errors(include_url=False)]
    if unknown and not UpdateFlags.model_fields.keys() & set(wrong):
        fields = ", ".join(sorted(model.model_fields))
        detail = f"Field `{unknown[0]:.40}` is not known; allowed: {fields}."
        raise UpdateRefused(400, "bad_request", detail)
    if checked is None:
        detail = f"Field `{wrong[0]}` is {found[wrong[0]]!r:.40}; allowed: {_ALLOWED[wrong[0]]}."
        raise UpdateRefused(400, "bad_request", detail)
    return checked


def learn_groups(
    sources: Iterable[tuple[str, Callable[[], Sequence[Row]]]],
    count: int,
    *,
    window_s: float,
    alpha: float,
    force: bool,
) -> LearnedReference:
    """Learn ``count`` groups one after the other, so that memory holds all rows of only one group.

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
        if not reference.calibrated and not force:
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


KEPT = 5
MAX_BYTES = 64 << 20


def load(path: Path, *, window_s: float, alpha: float) -> Reference | None:
    """Return the reference at ``path``, None without a file. Raises ReferenceBroken, which names the file."""
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
        # Use a hard link instead of a rename, so that there is a reference at ``path`` at every moment.
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
    """Write a learned reference, and return it as a later start will parse it. Raises OSError.

    ``others`` are the groups that stay unchanged, as :func:`other_groups` returns them.
    """
    document = document_of(learned.groups, window_s=window_s, interval_s=interval_s, others=others or {})
    reference = parse(document, window_s=window_s, alpha=alpha)
    save(path, document)
    return reference


def other_groups(path: Path) -> dict[str, Any]:
    """Return the groups of the present file in its JSON form; an empty dictionary if it cannot be read."""
    try:
        groups = json.loads(path.read_bytes()).get("groups")
    except (OSError, ValueError, AttributeError):
        return {}
    return groups if isinstance(groups, dict) else {}
