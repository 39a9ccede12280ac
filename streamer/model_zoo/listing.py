"""What ``streamer models list`` prints: two tables, or one JSON object. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from streamer.model_zoo.amounts import size_text
from streamer.model_zoo.catalogue import Catalogue
from streamer.model_zoo.entry import Entry
from streamer.model_zoo.installed import Installed

#: Names of classes shown in a row.
_SHOWN_LABELS = 3
_SHOWN_CHARS = 36


def listing(folder: Path, installed: Sequence[Installed], catalogue: Catalogue) -> str:
    """Return both tables for a terminal."""
    lines = [f"Installed in {folder}"]
    if installed:
        head = ("NAME", "SERVES", "SIZE", "LICENCE", "CLASSES", "INPUT", "")
        lines += _table([head, *(_installed_row(model, folder) for model in installed)])
    else:
        lines.append("  none")
    lines += ["", f"Known to {catalogue.path.name}; get one with `streamer models pull NAME`"]
    if catalogue.entries:
        here = {model.known.name for model in installed if model.known is not None}
        head = ("NAME", "TITLE", "SIZE", "LICENCE", "CLASSES", "INPUT", "")
        lines += _table([head, *(_entry_row(entry, here) for entry in catalogue.entries)])
    else:
        lines.append("  none")
    return "\n".join(lines)


def describe(folder: Path, installed: Sequence[Installed], catalogue: Catalogue) -> dict[str, Any]:
    """Return the same as plain JSON types."""
    here = {model.known.name for model in installed if model.known is not None}
    return {
        "folder": str(folder),
        "installed": [_describe_installed(model) for model in installed],
        "catalogue": str(catalogue.path),
        "known": [_describe_entry(entry) | {"installed": entry.name in here} for entry in catalogue.entries],
    }


def _installed_row(model: Installed, folder: Path) -> tuple[str, ...]:
    remarks = [model.trouble] if model.trouble else []
    if model.path.parent != folder:
        remarks.append(str(model.path))
    if model.differs:
        remarks.append("not the catalogue's file of this name")
    return (
        model.name,
        ", ".join(model.serves) or "-",
        size_text(model.size),
        model.licence or "?",
        _classes_text(model.classes, model.labels, model.known.trained_on if model.known else None),
        "?" if model.trouble else _input_text(model.input),
        "; ".join(remarks),
    )


def _entry_row(entry: Entry, here: set[str]) -> tuple[str, ...]:
    remark = "installed" if entry.name in here else ""
    if entry.sha256 is None:
        remark = (remark + ", " if remark else "") + "no checksum known: needs --trust"
    return (
        entry.name,
        entry.title,
        size_text(entry.size),
        entry.licence,
        _classes_text(entry.classes, entry.labels, entry.trained_on),
        _input_text(entry.input),
        remark,
    )


def _classes_text(count: int | None, labels: tuple[str, ...] | None, trained_on: str | None) -> str:
    if count is None:
        return "?"
    if not labels:
        return f"{count} ({trained_on})" if trained_on else str(count)
    text = ", ".join(labels[:_SHOWN_LABELS]) + (", …" if len(labels) > _SHOWN_LABELS else "")
    return f"{count}: {text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + '…'}"


def _input_text(size: tuple[int, int] | None) -> str:
    return f"{size[0]}x{size[1]}" if size else "dynamic"


def _table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    cells = [tuple(map(_printable, row)) for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return [
        ("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()
        for row in cells
    ]


def _printable(text: str) -> str:
    """Leave out what would move the cursor: metadata of a file is anybody's text."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _describe_installed(model: Installed) -> dict[str, Any]:
    return {
        "name": model.name,
        "file": str(model.path),
        "bytes": model.size,
        "serves": list(model.serves),
        "licence": model.licence,
        "classes": model.classes,
        "labels": list(model.labels) if model.labels else None,
        "input": _describe_size(model.input),
        "known_as": model.known.name if model.known else None,
        "differs_from_catalogue": model.differs,
        "trouble": model.trouble,
    }


def _describe_entry(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "title": entry.title,
        "family": entry.family.value,
        "bytes": entry.size,
        "sha256": entry.sha256,
        "licence": entry.licence,
        "classes": entry.classes,
        "labels": list(entry.labels) if entry.labels else None,
        "trained_on": entry.trained_on,
        "input": _describe_size(entry.input),
        "url": entry.url,
        "source": entry.source,
        "note": entry.note,
    }


def _describe_size(size: tuple[int, int] | None) -> dict[str, int] | None:
    return {"width": size[0], "height": size[1]} if size else None
