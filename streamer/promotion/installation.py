"""Puts a model in the place from which a version is served, in one step, and keeps the one before.

The place, such as `models/yolov9_v2.onnx`, becomes a link to a file in a folder beside it, whose name is the
digest of the model. The manifest lies beside that file. So one rename changes model and manifest together,
and a service that starts at any moment finds a pair that fits.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.models.manifest import manifest_path
from streamer.core.durable import flush, write_durably

_DIGEST_CHARS = 16
_PUBLIC = 0o644
_COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Installed:
    """What an installation changed."""

    #: The place that the service reads.
    place: Path
    #: The file that the place names now.
    file: Path
    #: The file that it named before; None if there was none.
    previous: Path | None


def install(model: Path, manifest: Mapping[str, Any], sha256: str, place: Path) -> Installed:
    """Serve ``model`` from ``place``, with ``manifest``. Raises OSError, and then ``place`` is as it was."""
    folder = place.with_name(f"{place.stem}.versions")
    folder.mkdir(parents=True, exist_ok=True)
    previous = _keep(place, folder)
    file = folder / f"{sha256[:_DIGEST_CHARS]}.onnx"
    text = json.dumps(dict(manifest) | {"sha256": sha256}, ensure_ascii=False, indent=2) + "\n"
    if not (file.exists() and model.samefile(file)):
        part = file.with_name(f".{file.name}.part")
        _copy(model, part)
        part.replace(file)
    beside = manifest_path(file)
    write_durably(beside, text.encode(), beside.with_name(f".{beside.name}.part"))
    beside.chmod(_PUBLIC)
    flush(folder)
    _link(place, file)
    # The service reads the manifest beside the file; this link is for people and `streamer models list`.
    _link(manifest_path(place), beside)
    return Installed(place, file, previous)


def _keep(place: Path, folder: Path) -> Path | None:
    """Return the file that ``place`` names; one that lies there itself is copied into ``folder`` first."""
    if not place.exists():
        return None
    if place.is_symlink():
        return place.resolve()
    kept = folder / f"before-{place.stat().st_mtime_ns}.onnx"
    for source, target in ((manifest_path(place), manifest_path(kept)), (place, kept)):
        if source.exists() and not target.exists():
            part = target.with_name(f".{target.name}.part")
            _copy(source, part)
            part.replace(target)
    flush(folder)
    return kept


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as data, target.open("wb") as copy:
        shutil.copyfileobj(data, copy, _COPY_BYTES)
        copy.flush()
        os.fsync(copy.fileno())
    target.chmod(_PUBLIC)


def _link(place: Path, target: Path) -> None:
    """Let ``place`` be a link to ``target``, which is in a folder beside it, in one step."""
    aside = place.with_name(f".{place.name}.part")
    aside.unlink(missing_ok=True)
    aside.symlink_to(target.relative_to(place.parent))
    aside.replace(place)
    flush(place.parent)
