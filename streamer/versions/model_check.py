"""Looks into a model file that a request names, before the supervisor has a process load it.

A worker does this, so that the supervisor parses no file of a stranger. Only loading the file tells whether
it can be served; this finds what can be told at once.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from inference.core.errors import ModelRefused
from inference.models.manifest import Manifest
from inference.models.model_file import check_file
from inference.models.onnx_header import NotOnnx, external_locations, read_header
from streamer.versions.errors import ChangeRefused
from streamer.versions.model_path import check_digest, find_model


def check_model(folder: Path, name: str, sha256: str | None) -> None:
    """Check the file ``name`` below ``folder``. Reads it completely; call this in a thread.

    Raises ChangeRefused if it is missing, empty, no ONNX file, or outside, if a weight file is missing or
    outside, or if its digest is not ``sha256``.
    """
    path = find_model(folder, name)
    try:
        check_digest(name, check_file(path, Manifest()), sha256)
        read_header(path)
        locations = external_locations(path)
    except ModelRefused as error:
        raise ChangeRefused("model_refused", f"{name}: {error.found}. {error.fix}") from error
    except (NotOnnx, ValueError, RecursionError) as error:
        raise ChangeRefused("model_refused", f"{name} is no model: {error}") from error
    except OSError as error:
        raise ChangeRefused("unreadable_file", f"{name} cannot be read: {error.strerror or error}") from error
    for location in sorted(locations):
        _check_weights(path, folder, name, location)


def _check_weights(model: Path, folder: Path, name: str, location: str) -> None:
    """Raise ChangeRefused if a weight file of ``model`` is missing or outside ``folder``."""
    shown = repr(location[:200])
    parts = PurePosixPath(location)
    try:
        path = (model.parent / location).resolve()
        outside = parts.is_absolute() or ".." in parts.parts or not path.is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # RuntimeError: a link that leads to itself
        outside = True
    if outside:
        raise ChangeRefused(
            "path_outside",
            f"{name} keeps weights in {shown}; weight files lie beside it, in the folder of the models",
        )
    if not path.is_file():
        raise ChangeRefused("no_such_file", f"{name} keeps weights in {shown}, which is missing")
