"""Reads and writes the file format of a reference: JSON, `schema` 2, which docs/drift.md describes.

This module also reads plain rows: a list of maps from column to value, which people can write by hand or from
a notebook; and files of schema 1, whose rows it learns from again.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Annotated, Any, NotRequired

import msgpack
import numpy as np
from pydantic import Field
from typing_extensions import TypedDict

from streamer.drift.errors import ReferenceBroken
from streamer.drift.limits_document import StoredLimits, describe_limits, parse_limits
from streamer.drift.reference import ANY, MIN_ROWS, GroupReference, Reference, learn
from streamer.drift.rows import ALL, CATEGORICAL, CLASSES, FEATURE_VERSION, NUMERIC, Row, Table

SCHEMA = 2
#: Files of this schema hold the same rows, and thresholds that are not used any more.
OLD_SCHEMA = 1
#: Fields of a document, as the text of an error.
_NAMED_FIELDS = "schema, feature_version, created, window_s, columns, groups, sha256"
#: The last field of a file while its digest is empty. The digest is computed over the text with this field.
_NO_DIGEST = '"sha256":""'
COLUMNS = ("at", "stream", *ALL)
_PLAIN_FIELDS = frozenset((*ALL, "at", "stream", "group", "model"))
#: Schema of one plain row, for the API description. `parse_plain_rows` checks rows without it, because a
#: request may hold thousands.
PLAIN_ROW_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "One row: a value for each column; a column that is left out is a missing value.",
    "properties": {
        "at": {"type": ["number", "null"], "description": "When it was measured, in Unix seconds."},
        "group": {
            "type": "string",
            "description": "Name of the streams that it is normal for; `*` for all.",
        },
        "stream": {"type": ["string", "null"], "description": "Name of the stream that it comes from."},
        "model": {"type": "string", "description": "Version and digest of the model, as in `/drift/status`."},
        **{name: {"type": ["number", "null"]} for name in NUMERIC},
        **{name: {"type": ["string", "null"]} for name in CATEGORICAL},
        CLASSES: {
            "type": ["object", "null"],
            "additionalProperties": {"type": "number"},
            "description": "How many boxes of each label the model has found.",
        },
    },
    "additionalProperties": False,
}


class StoredGroup(TypedDict):
    """One group of a reference: its rows, and limits that were learned from them."""

    model: NotRequired[Annotated[str, Field(description="Version and digest of the model.")]]
    span_h: NotRequired[Annotated[float, Field(description="Hours between the first and the last row.")]]
    limits: NotRequired[
        Annotated[StoredLimits | None, Field(description="Its limits; default thresholds when absent.")]
    ]
    rows: Annotated[
        list[list[Any]],
        Field(min_length=MIN_ROWS, description="The rows, each with a value for every one of `columns`."),
    ]


class ReferenceHead(TypedDict):
    """What a reference says before its groups."""

    schema: Annotated[int, Field(json_schema_extra={"const": SCHEMA}, description="Version of this format.")]
    feature_version: Annotated[
        int, Field(json_schema_extra={"const": FEATURE_VERSION}, description="Version of the columns.")
    ]
    created: NotRequired[Annotated[str, Field(description="When it was learned.")]]
    window_s: NotRequired[Annotated[float, Field(description="Length of a window in seconds.")]]
    interval_s: NotRequired[Annotated[float, Field(description="Seconds between two rows of a stream.")]]
    columns: Annotated[
        list[str],
        Field(
            json_schema_extra={"items": {"enum": list(COLUMNS)}, "contains": {"const": "at"}},
            description="The columns of every row, in order.",
        ),
    ]


class ReferenceDocument(ReferenceHead):
    """A whole reference, as the service stores it and docs/drift.md describes it."""

    groups: Annotated[
        dict[str, StoredGroup],
        Field(min_length=1, description="The groups by name of their streams; `*` is for all others."),
    ]
    sha256: NotRequired[
        Annotated[
            str, Field(description="SHA-256 of the text with this field empty. It is checked if it is there.")
        ]
    ]


def parse(text: bytes, *, window_s: float, alpha: float) -> Reference:
    """Read a document or plain rows. Raises ReferenceBroken."""
    try:
        document = json.loads(text, object_hook=_compact)
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        # TypeError: the document has rows nested in rows, which `_compact` cannot pack.
        raise ReferenceBroken(f"not JSON that fits: {error}") from error
    if isinstance(document, dict) and "groups" in document:
        _check_digest(document, text)
        return _parse_document(document, hashlib.sha256(text).hexdigest(), window_s, alpha)
    rows = document.get("rows") if isinstance(document, dict) else document
    by_group = parse_plain_rows(rows.open() if isinstance(rows, _Packed) else rows)
    groups = {}
    for name, found in by_group.items():
        groups[name] = learn_plain(name, found, window_s, alpha)[0]
    return Reference(groups, "", hashlib.sha256(text).hexdigest())


def learn_plain(
    name: str, rows: Sequence[Row], window_s: float, alpha: float
) -> tuple[GroupReference, list[Row]]:
    """Learn one group from plain rows; rows without times leave it uncalibrated. Raises ReferenceBroken."""
    try:
        return learn(rows, window_s, alpha)
    except ValueError as error:
        raise ReferenceBroken(f"group {name!r} has {error}") from error


def parse_plain_rows(rows: Any) -> dict[str, list[Row]]:
    """Return rows by group, from a list of maps of column to value. Raises ReferenceBroken.

    A column that a map does not contain becomes a missing value.
    """
    if not isinstance(rows, list) or not rows:
        raise ReferenceBroken(f"needed is a list of rows, or a map with {_NAMED_FIELDS}")
    groups: dict[str, list[Row]] = defaultdict(list)
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ReferenceBroken(f"row {number} is {_shown(row)}; needed is a map of column to value")
        unknown = sorted(row.keys() - _PLAIN_FIELDS)
        if unknown:
            raise ReferenceBroken(f"row {number} has the column {unknown[0]!r}; known are {', '.join(ALL)}")
        groups[str(row.get("group", ANY))].append(_row(row, str(row.get("model", "")), f"row {number}"))
    return dict(groups)


def document_of(
    groups: Mapping[str, tuple[GroupReference, Sequence[Row]]],
    *,
    window_s: float,
    interval_s: float,
    others: Mapping[str, Any] = MappingProxyType({}),
) -> bytes:
    """Return a document of ``groups`` and ``others``.

    ``others`` are groups of another document, in their JSON form. A group in both is taken from ``groups``.
    """
    head: ReferenceHead = {
        "schema": SCHEMA,
        "feature_version": FEATURE_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "window_s": window_s,
        "interval_s": interval_s,
        "columns": list(COLUMNS),
    }
    # Serialise one group after the other: all rows together would take a hundred megabytes as Python numbers.
    texts = [f"{_dump(name)}:{_dump(found)}" for name, found in others.items() if name not in groups]
    texts += [
        f"{_dump(name)}:{_dump(_describe(reference, rows))}" for name, (reference, rows) in groups.items()
    ]
    text = f'{_dump(head)[:-1]},"groups":{{{",".join(texts)}}},{_NO_DIGEST}}}'.encode()
    body = text[: -len(_NO_DIGEST) - 1]
    return body + _with_digest(hashlib.sha256(text).hexdigest()) + b"}"


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _with_digest(digest: str) -> bytes:
    return f'"sha256":"{digest}"'.encode()


def _check_digest(document: Mapping[str, Any], text: bytes) -> None:
    """Raise ReferenceBroken when the text does not match its digest; a document without one is accepted."""
    digest = document.get("sha256")
    if digest is None:
        return
    head, _, tail = text.rpartition(_with_digest(str(digest)))
    if hashlib.sha256(head + _NO_DIGEST.encode() + tail).hexdigest() != digest:
        raise ReferenceBroken(
            "sha256 does not fit: the file was cut off or edited; take the field out if that was meant"
        )


def _compact(found: dict[str, Any]) -> dict[str, Any]:
    """Pack the rows of a group as soon as the JSON parser has read them, to save memory."""
    if isinstance(found.get("rows"), list):
        found["rows"] = _Packed(msgpack.packb(found["rows"]))
    return found


class _Packed:
    """Holds the rows of a group as msgpack bytes until the group is parsed."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def open(self) -> Any:
        """Return the rows."""
        return msgpack.unpackb(self._data, strict_map_key=False)


def _describe(reference: GroupReference, rows: Sequence[Row]) -> StoredGroup:
    return {
        "model": reference.model,
        "span_h": round(reference.span_h, 2),
        "limits": describe_limits(reference.windows) if reference.windows is not None else None,
        "rows": [
            [
                round(row.at, 1),
                row.stream,
                *(None if math.isnan(value) else float(f"{value:.6g}") for value in row.numbers.tolist()),
                *(getattr(row, name) for name in CATEGORICAL),
                dict(row.classes),
            ]
            for row in rows
        ],
    }


def _parse_document(document: dict[str, Any], digest: str, window_s: float, alpha: float) -> Reference:
    if document.get("schema") not in (SCHEMA, OLD_SCHEMA):
        raise ReferenceBroken(
            f"schema is {_shown(document.get('schema'))}; this release reads {OLD_SCHEMA} and {SCHEMA}"
        )
    if document.get("feature_version") != FEATURE_VERSION:
        raise ReferenceBroken(
            f"feature_version is {_shown(document.get('feature_version'))}; this release measures "
            f"version {FEATURE_VERSION}: make a new reference (POST /reference/update)"
        )
    columns, groups = document.get("columns"), document["groups"]
    if not isinstance(columns, list) or set(columns) - set(COLUMNS) or "at" not in columns:
        raise ReferenceBroken(f"columns is {_shown(columns)}; allowed are {', '.join(COLUMNS)}")
    if not isinstance(groups, dict) or not groups:
        raise ReferenceBroken("groups is empty; needed is a map of group to its rows")
    old = document["schema"] == OLD_SCHEMA
    parsed = {
        str(name): _parse_group(str(name), group, columns, (window_s, alpha) if old else None)
        for name, group in groups.items()
    }
    return Reference(parsed, str(document.get("created", "")), digest)


def _parse_group(
    name: str, group: Any, columns: list[str], learning: tuple[float, float] | None
) -> GroupReference:
    """Parse a group; with ``learning``, learn it again with this window and false-alarm rate."""
    where = f"group {name!r}"
    if not isinstance(group, dict) or not isinstance(group.get("rows"), _Packed):
        raise ReferenceBroken(f"{where} has no list `rows`")
    model = str(group.get("model", ""))
    rows = []
    for number, values in enumerate(group["rows"].open()):
        if not isinstance(values, list) or len(values) != len(columns):
            raise ReferenceBroken(f"{where}, row {number}: needed is a list of {len(columns)} values")
        rows.append(_row(dict(zip(columns, values, strict=True)), model, f"{where}, row {number}"))
    if len(rows) < MIN_ROWS:
        raise ReferenceBroken(f"{where} has {len(rows)} rows; needed are {MIN_ROWS}")
    if learning is not None:
        return learn(rows, *learning)[0]
    table = Table.of(rows)
    stored = group.get("limits")
    windows = parse_limits(stored, where) if stored is not None else None
    span_h = float(table.at[-1] - table.at[0]) / 3600
    return GroupReference(model, table, span_h, windows.limits if windows is not None else None, windows)


def _row(values: Mapping[str, Any], model: str, where: str) -> Row:
    numbers = [
        math.nan if values.get(name) is None else _number(values[name], f"{where}: {name}")
        for name in NUMERIC
    ]
    categories = {name: str(values.get(name) or "") for name in CATEGORICAL}
    classes = values.get(CLASSES) or {}
    if not isinstance(classes, dict):
        raise ReferenceBroken(f"{where}: {CLASSES} is {_shown(classes)}; needed is a map of label to count")
    counts = tuple(
        (str(label), int(_number(count, f"{where}: {CLASSES}"))) for label, count in classes.items()
    )
    at = _number(values.get("at") or 0, f"{where}: at")
    stream = str(values.get("stream") or "")
    return Row(at, stream, 0, model, np.array(numbers, np.float32), **categories, classes=counts)


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool):
        return float(value)
    try:
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ReferenceBroken(f"{where} is {_shown(value)}; needed is a finite number")
        return float(value)
    except OverflowError:
        raise ReferenceBroken(f"{where} is a whole number that no float holds") from None


def _shown(value: Any) -> str:
    return f"{value!r:.60}"
