"""Locates the files that come with the code: the demo page, the bundled models, the sample clip.

In a checkout they are folders beside `streamer`. In a wheel they are inside it, see pyproject.toml.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _folder(name: str) -> Path:
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


STATIC_DIR = _folder("static")
MODELS_DIR = _folder("models")
SAMPLE_FILE = _folder("data") / "sample.mp4"
