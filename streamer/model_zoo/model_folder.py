"""Finds the models in a folder, lists them beside the known models, and writes their manifests."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.core.errors import ModelRefused
from inference.models.class_names import number_apart, parse_names
from inference.models.manifest import Manifest, manifest_path, parse_manifest, read_manifest
from inference.models.onnx_header import NotOnnx, OnnxHeader, licence_of, read_header
from streamer.core.terminal import Table
from streamer.model_zoo.download_url import BadRequest, CannotWrite
from streamer.model_zoo.registry import Registry, RegistryEntry, size_text


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledModel:
    """Describes one model file.

    A field is None if neither manifest, metadata nor registry states its value.
    """

    name: str
    path: Path
    size: int
    #: Versions of the service that run this file, such as ``v1``.
    serves: tuple[str, ...] = ()
    licence: str | None = None
    labels: tuple[str, ...] | None = None
    classes: int | None = None
    #: Width and height of the model input in pixels; None if it is dynamic.
    input: tuple[int, int] | None = None
    #: The registry's entry of this name; None if the file is broken, or has another size or checksum.
    known: RegistryEntry | None = None
    #: Whether the registry's entry of this name describes another file.
    differs: bool = False
    #: Why the file cannot be used, in short; None if it can. The service gives the full reason.
    trouble: str | None = None


def find_installed(folder: Path, registry: Registry, serving: Mapping[str, Path]) -> list[InstalledModel]:
    """Return the models in ``folder``, then those that are served from elsewhere, both sorted by name.

    ``serving`` maps versions to files. Raises BadRequest when the folder cannot be read.
    """
    try:
        paths = set(_models_in(folder))
    except OSError as error:
        raise BadRequest(f"folder {folder}: {error.strerror or error}") from error
    resolved = {path.resolve() for path in paths}
    paths |= {path for path in serving.values() if path.resolve() not in resolved}
    return [
        _describe(path, registry, _versions(path, serving))
        for path in sorted(paths, key=lambda path: (path.parent != folder, path.name))
    ]


def write_manifest(model: Path, values: Mapping[str, Any]) -> Path:
    """Write ``values`` as the manifest of the file ``model``, atomically, and return its path.

    Raises CannotWrite, and ValueError when the service would refuse such a manifest.
    """
    path = manifest_path(model)
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    try:
        parse_manifest(text.encode(), str(path))
    except ModelRefused as error:
        raise ValueError(str(error)) from error
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise CannotWrite(f"{path}: {error.strerror or error}") from error
    return path


def _models_in(folder: Path) -> Iterator[Path]:
    if not folder.exists():
        return
    for path in folder.iterdir():
        if path.suffix.lower() == ".onnx" and not path.name.startswith(".") and path.is_file():
            yield path


def _versions(path: Path, serving: Mapping[str, Path]) -> tuple[str, ...]:
    return tuple(version for version, file in serving.items() if file.resolve() == path.resolve())


def _describe(path: Path, registry: Registry, serves: tuple[str, ...]) -> InstalledModel:
    trouble, manifest, header = None, Manifest(), OnnxHeader()
    size = path.stat().st_size
    try:
        header = read_header(path)
        manifest = read_manifest(path)
    except NotOnnx as error:
        trouble = str(error)
    except OSError as error:
        trouble = error.strerror or str(error)
    except ModelRefused as error:
        trouble = f"manifest: expected {error.expected}; found {error.found}"
    entry = registry.get(path.stem)
    known = entry if entry is not None and trouble is None and _may_be(entry, size, manifest) else None
    labels = manifest.labels or parse_names(header.metadata.get("names", "")) or (known and known.labels)
    return InstalledModel(
        name=path.stem,
        path=path,
        size=size,
        serves=serves,
        licence=manifest.licence or licence_of(header.metadata) or (known.licence if known else None),
        labels=number_apart(labels) if labels else None,
        classes=len(labels) if labels else (known.classes if known else None),
        input=manifest.input or _input_of(header) or (known.input if known else None),
        known=known,
        differs=entry is not None and known is None and trouble is None,
        trouble=trouble,
    )


def _may_be(entry: RegistryEntry, size: int, manifest: Manifest) -> bool:
    """Return whether a file of the entry's name may be the entry's file, judged without hashing it."""
    if entry.size is not None and entry.size != size:
        return False
    return None in (entry.sha256, manifest.sha256) or entry.sha256 == manifest.sha256


def _input_of(header: OnnxHeader) -> tuple[int, int] | None:
    match header.input_shape:
        case (_, _, int(height), int(width)):
            return width, height
    return None


#: Number of class names shown in a row, and of characters that they may take together.
_SHOWN_LABELS = 3
_SHOWN_CHARS = 36


def list_text(folder: Path, installed: Sequence[InstalledModel], registry: Registry) -> str:
    """Return the tables of installed and of known models as text."""
    lines: list[str] = []
    for table in list_tables(folder, installed, registry):
        lines += ["", table.title] if lines else [table.title]
        lines += _table([table.head, *table.rows]) if table.rows else [f"  {table.note}"]
    return "\n".join(lines)


def list_tables(folder: Path, installed: Sequence[InstalledModel], registry: Registry) -> tuple[Table, Table]:
    """Return the table of installed models and the table of known models."""
    installed_names = {model.known.name for model in installed if model.known is not None}
    return (
        Table(
            f"Installed in {folder}",
            ("NAME", "SERVES", "SIZE", "LICENCE", "CLASSES", "INPUT", ""),
            tuple(_installed_row(model, folder) for model in installed),
            note="" if installed else "none",
        ),
        Table(
            f"Known to {registry.path.name}; download one with `streamer models pull NAME`",
            ("NAME", "TITLE", "SIZE", "LICENCE", "CLASSES", "INPUT", ""),
            tuple(_entry_row(entry, installed_names) for entry in registry.entries),
            note="" if registry.entries else "none",
        ),
    )


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
    """Replace control characters, because metadata may contain escape sequences for the terminal."""
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
