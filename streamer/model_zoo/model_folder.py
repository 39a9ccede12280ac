"""The models in a folder: what is known about each without running it, and writing the manifest of one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.core.errors import ModelRefused
from inference.models.labels import parse_names
from inference.models.manifest import Manifest, manifest_path, parse_manifest, read_manifest
from inference.models.onnx_header import NotOnnx, OnnxHeader, licence_of, read_header
from streamer.model_zoo.errors import BadRequest, CannotWrite
from streamer.model_zoo.registry import Registry, RegistryEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledModel:
    """One model file. A field is None if neither manifest, metadata nor registry says it."""

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
    #: The registry's entry of this name, if nothing contradicts that this is its file.
    known: RegistryEntry | None = None
    #: Whether the registry's entry of this name describes another file.
    differs: bool = False
    #: Why the file cannot be used, in short; the service gives the full reason.
    trouble: str | None = None


def find_installed(folder: Path, registry: Registry, serving: Mapping[str, Path]) -> list[InstalledModel]:
    """Return the models in ``folder`` and those that are served from elsewhere, sorted by name.

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
    """Write ``values`` as the manifest of the file ``model``, atomically; returns its path.

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
        labels=labels or None,
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
