"""Encodes the rows of one stream in half an hour as a file for the store of samples, and decodes it. Pure.

docs/drift.md describes the format: gzipped JSON with a list for each column. A file says by itself all that a
reader needs to join it with the files of other replicas, or to keep it apart from them.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from streamer.drift.errors import DriftError
from streamer.drift.rows import CATEGORICAL, CLASSES, FEATURE_VERSION, NUMERIC, Row

#: First part of every key.
PREFIX = "v1/rows/"
#: Increase this number when a field changes its meaning.
SCHEMA = 1
#: A file covers at most this many seconds, and begins at a multiple of it.
FILE_S = 1800
#: Largest size of an unpacked file. 1,440 rows, the most of one name in half an hour, take 0.4 MB.
MAX_BYTES = 32 << 20
_KEY = re.compile(
    rf"{PREFIX}dt=(?P<day>\d{{4}}-\d\d-\d\d)/stream=(?P<stream>[^/]+)/"
    r"(?P<clock>\d{4})-(?P<replica>[a-z0-9-]+)-[0-9a-f]{12}\.json\.gz"
)


class DamagedRows(DriftError):
    """A file of rows cannot be read; the text names the file or field, and what was found."""


class OtherFeatures(DriftError):
    """A file has rows of another feature version, which cannot be compared with those of this release."""


#: What readers of fields raise for content that is not that of a file of rows.
_NO_ROWS = (
    TypeError,
    ValueError,
    AttributeError,
    IndexError,
    OverflowError,
    RecursionError,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class RowFile:
    """Holds the rows that one replica has measured of one stream in [``begin``, ``begin + FILE_S``)."""

    stream: str
    #: Id of the replica; it stays the same as long as the replica keeps its folder of samples.
    replica: str
    #: Unix seconds, a multiple of ``FILE_S``.
    begin: int
    #: Seconds between two rows of a stream, as configured.
    interval_s: float
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class RowFileName:
    """Holds what the key of a file says about it."""

    key: str
    stream: str
    replica: str
    begin: int

    @classmethod
    def parse(cls, key: str) -> RowFileName | None:
        """Return what a key says; None if it is not the key of a file of rows."""
        found = _KEY.fullmatch(key)
        if found is None:
            return None
        try:
            begin = datetime.strptime(f"{found['day']} {found['clock']} +0000", "%Y-%m-%d %H%M %z")
        except ValueError:
            return None
        return cls(key, found["stream"], found["replica"], int(begin.timestamp()))


def day_prefix(day: str) -> str:
    """Return the prefix of the keys of a day (UTC) such as ``2026-11-23``."""
    return f"{PREFIX}dt={day}/"


def encode(file: RowFile, service_version: str) -> tuple[str, bytes]:
    """Return the key and the content of a file; the same rows always give the same key and content.

    Numbers have five digits, and times are in milliseconds.
    """
    models = sorted({row.model for row in file.rows})
    columns: dict[str, list[Any]] = {
        "at": [round(row.at, 3) for row in file.rows],
        "session": [row.session for row in file.rows],
        "model": [models.index(row.model) for row in file.rows],
    }
    for place, name in enumerate(NUMERIC):
        columns[name] = [_number(float(row.numbers[place])) for row in file.rows]
    for name in CATEGORICAL:
        columns[name] = [getattr(row, name) for row in file.rows]
    columns[CLASSES] = [dict(row.classes) for row in file.rows]
    document = {
        "schema": SCHEMA,
        "feature_version": FEATURE_VERSION,
        "stream": file.stream,
        "replica": file.replica,
        "from": file.begin,
        "to": file.begin + FILE_S,
        "interval_s": file.interval_s,
        "models": models,
        "service": {"version": service_version},
        "columns": columns,
    }
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    begin = datetime.fromtimestamp(file.begin, UTC)
    digest = hashlib.sha256(text).hexdigest()[:12]
    key = (
        f"{day_prefix(begin.strftime('%Y-%m-%d'))}stream={file.stream}/"
        f"{begin.strftime('%H%M')}-{file.replica}-{digest}.json.gz"
    )
    return key, gzip.compress(text, mtime=0)


def decode(data: bytes, where: str) -> RowFile:
    """Return the rows of a file. Raises DamagedRows or OtherFeatures, whose texts begin with ``where``."""
    try:
        unpacker = zlib.decompressobj(wbits=31)
        text = unpacker.decompress(data, MAX_BYTES)
        if unpacker.unconsumed_tail or not unpacker.eof:
            raise DamagedRows(f"{where}: it is cut off, or larger than {MAX_BYTES} bytes")
        document = json.loads(text)
        if document["schema"] != SCHEMA:
            found = f"{document['schema']!r:.20}"
            raise DamagedRows(f"{where}: field `schema` is {found}; this release reads {SCHEMA}")
        if document["feature_version"] != FEATURE_VERSION:
            found = f"{document['feature_version']!r:.20}"
            raise OtherFeatures(
                f"{where}: field `feature_version` is {found}; this release measures {FEATURE_VERSION}"
            )
        return _file(document)
    except KeyError as error:
        raise DamagedRows(f"{where}: field `{error.args[0]}` is missing") from error
    except _NO_ROWS as error:
        raise DamagedRows(f"{where}: not a file of drift rows: {error}") from error


def _file(document: dict[str, Any]) -> RowFile:
    columns = document["columns"]
    stream, models = str(document["stream"]), [str(model) for model in document["models"]]
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused below
        numbers = np.array([columns[name] for name in NUMERIC], np.float32).T  # None becomes NaN
    at = [float(value) for value in columns["at"]]
    texts = [[str(value) for value in columns[name]] for name in CATEGORICAL]
    sessions, places, classes = (columns[name] for name in ("session", "model", CLASSES))
    if numbers.shape != (len(at), len(NUMERIC)):
        raise ValueError("its columns differ in length")
    if min(places, default=0) < 0:
        raise ValueError("the number of a model is negative")
    if not all(map(math.isfinite, at)) or np.isinf(numbers).any():
        raise ValueError("it contains an infinite number")
    counts = [tuple((str(label), int(count)) for label, count in each.items()) for each in classes]
    rows = [
        Row(moment, stream, int(session), models[place], values, top_class, resolution, source, found)
        for moment, session, place, values, top_class, resolution, source, found in zip(
            at, sessions, places, numbers, *texts, counts, strict=True
        )
    ]
    return RowFile(
        stream, str(document["replica"]), int(document["from"]), float(document["interval_s"]), rows
    )


def _number(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None
