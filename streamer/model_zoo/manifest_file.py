"""Writes manifests, which `inference.models.manifest` reads: beside the model, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inference.core.errors import ModelRefused
from inference.models.manifest import manifest_path, parse_manifest
from streamer.model_zoo.errors import CannotWrite


def write_manifest(model: Path, values: Mapping[str, Any]) -> Path:
    """Write ``values`` as the manifest of the file ``model``; returns its path.

    Raises CannotWrite, and ValueError when the service would refuse such a manifest.
    """
    path = manifest_path(model)
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    try:
        parse_manifest(text.encode(), str(path))
    except ModelRefused as error:
        raise ValueError(str(error)) from error
    draft = path.with_name(f".{path.name}.new")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise CannotWrite(f"{path}: {error.strerror or error}") from error
    return path
