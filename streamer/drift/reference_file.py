"""Reads and writes the reference file: replaced atomically, with the five previous files kept beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streamer.core.durable import write_durably
from streamer.drift.errors import ReferenceBroken
from streamer.drift.learned_reference import LearnedReference
from streamer.drift.reference import Reference
from streamer.drift.reference_document import document_of, parse

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
