"""The output of ``streamer models list``: two tables, or one JSON object. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from streamer.model_zoo.model_folder import InstalledModel
from streamer.model_zoo.progress import size_text
from streamer.model_zoo.registry import Registry, RegistryEntry

#: Class names shown in a row, and the characters that they may take.
_SHOWN_LABELS = 3
_SHOWN_CHARS = 36


def list_text(folder: Path, installed: Sequence[InstalledModel], registry: Registry) -> str:
    """Return both tables as text."""
    lines = [f"Installed in {folder}"]
    if installed:
        head = ("NAME", "SERVES", "SIZE", "LICENCE", "CLASSES", "INPUT", "")
        lines += _table([head, *(_installed_row(model, folder) for model in installed)])
    else:
        lines.append("  none")
    lines += ["", f"Known to {registry.path.name}; download one with `streamer models pull NAME`"]
    if registry.entries:
        installed_names = {model.known.name for model in installed if model.known is not None}
        head = ("NAME", "TITLE", "SIZE", "LICENCE", "CLASSES", "INPUT", "")
        lines += _table([head, *(_entry_row(entry, installed_names) for entry in registry.entries)])
    else:
        lines.append("  none")
    return "\n".join(lines)


def list_json(folder: Path, installed: Sequence[InstalledModel], registry: Registry) -> dict[str, Any]:
    """Return the content of both tables as plain JSON types."""
    installed_names = {model.known.name for model in installed if model.known is not None}
    return {
        "folder": str(folder),
        "installed": [_installed_json(model) for model in installed],
        "catalogue": str(registry.path),
        "known": [
            _entry_json(entry) | {"installed": entry.name in installed_names} for entry in registry.entries
        ],
    }


def _installed_row(model: InstalledModel, folder: Path) -> tuple[str, ...]:
    remarks = [model.trouble] if model.trouble else []
    if model.path.parent != folder:
        remarks.append(str(model.path))
    if model.differs:
        remarks.append("not the known model of this name")
    return (
        model.name,
        ", ".join(model.serves) or "-",
        size_text(model.size),
        model.licence or "?",
        _classes_text(model.classes, model.labels, model.known.trained_on if model.known else None),
        "?" if model.trouble else _input_text(model.input),
        "; ".join(remarks),
    )


def _entry_row(entry: RegistryEntry, installed_names: set[str]) -> tuple[str, ...]:
    remark = "installed" if entry.name in installed_names else ""
    if entry.sha256 is None:
        remark = (remark + ", " if remark else "") + "no known checksum: needs --trust"
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
    """Replace control characters: the metadata of a file may hold escape sequences for the terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _installed_json(model: InstalledModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "file": str(model.path),
        "bytes": model.size,
        "serves": list(model.serves),
        "licence": model.licence,
        "classes": model.classes,
        "labels": list(model.labels) if model.labels else None,
        "input": _size_json(model.input),
        "known_as": model.known.name if model.known else None,
        "differs_from_catalogue": model.differs,
        "trouble": model.trouble,
    }


def _entry_json(entry: RegistryEntry) -> dict[str, Any]:
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
        "input": _size_json(entry.input),
        "url": entry.url,
        "source": entry.source,
        "note": entry.note,
    }


def _size_json(size: tuple[int, int] | None) -> dict[str, int] | None:
    return {"width": size[0], "height": size[1]} if size else None
