"""Model files that lie in a folder, and what is known of each without running it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from inference.core.errors import ModelRefused
from inference.models.labels import parse_names
from inference.models.manifest import Manifest, read_manifest
from streamer.model_zoo.catalogue import Catalogue
from streamer.model_zoo.entry import Entry
from streamer.model_zoo.errors import BadRequest
from streamer.model_zoo.header import NotOnnx, OnnxHeader, licence_of, read_header


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """One model file. None where neither manifest, metadata nor catalogue tell."""

    name: str
    path: Path
    size: int
    #: Versions of the service that run this file, such as ``v1``.
    serves: tuple[str, ...] = ()
    licence: str | None = None
    labels: tuple[str, ...] | None = None
    classes: int | None = None
    #: Width and height of the model input in pixels; None where it is dynamic.
    input: tuple[int, int] | None = None
    #: The entry of the catalogue that has this name and, as far as is known, this file.
    known: Entry | None = None
    #: Whether the catalogue has an entry of this name that means another file.
    differs: bool = False
    #: Why the file cannot be used; the service says more.
    trouble: str | None = None


def find_installed(folder: Path, catalogue: Catalogue, serving: Mapping[str, Path]) -> list[Installed]:
    """Return the models in ``folder`` and those that are served from elsewhere, by name.

    ``serving`` maps versions to files. Raises BadRequest when the folder cannot be read.
    """
    try:
        paths = set(_models_in(folder))
    except OSError as error:
        raise BadRequest(f"folder {folder}: {error.strerror or error}") from error
    resolved = {path.resolve() for path in paths}
    paths |= {path for path in serving.values() if path.resolve() not in resolved}
    return [
        _describe(path, catalogue, _versions(path, serving))
        for path in sorted(paths, key=lambda path: (path.parent != folder, path.name))
    ]


def _models_in(folder: Path) -> Iterator[Path]:
    if not folder.exists():
        return
    for path in folder.iterdir():
        if path.suffix.lower() == ".onnx" and not path.name.startswith(".") and path.is_file():
            yield path


def _versions(path: Path, serving: Mapping[str, Path]) -> tuple[str, ...]:
    return tuple(version for version, file in serving.items() if file.resolve() == path.resolve())


def _describe(path: Path, catalogue: Catalogue, serves: tuple[str, ...]) -> Installed:
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
    entry = catalogue.get(path.stem)
    known = entry if entry is not None and trouble is None and _may_be(entry, size, manifest) else None
    labels = manifest.labels or parse_names(header.metadata.get("names", "")) or (known and known.labels)
    return Installed(
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


def _may_be(entry: Entry, size: int, manifest: Manifest) -> bool:
    """Return whether a file of the entry's name is the entry's file, as far as can be told unread."""
    if entry.size is not None and entry.size != size:
        return False
    return None in (entry.sha256, manifest.sha256) or entry.sha256 == manifest.sha256


def _input_of(header: OnnxHeader) -> tuple[int, int] | None:
    match header.input_shape:
        case (_, _, int(height), int(width)):
            return width, height
    return None
