"""The reference on disk: read at the start, replaced in one step, with five old ones kept beside it."""

from __future__ import annotations

import os
from pathlib import Path

from streamer.core.durable import write_durably
from streamer.drift.errors import ReferenceBroken
from streamer.drift.reference import Reference
from streamer.drift.reference_document import parse

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
    """Put the document there; what was there becomes `NAME.1`, and so on to `NAME.5`. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    old = [path.with_name(f"{path.name}.{number}") for number in range(1, KEPT + 1)]
    if path.exists():
        for older, newer in zip(reversed(old[1:]), reversed(old[:-1]), strict=True):
            if newer.exists():
                newer.replace(older)
        # A second name, not a move: at no moment is there no reference.
        old[0].unlink(missing_ok=True)
        os.link(path, old[0])
    write_durably(path, document, path.with_name(f".{path.name}.new"))
