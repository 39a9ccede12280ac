"""The version that this client tells the server."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def client_version() -> str:
    """Return the installed version, or a word for a source tree."""
    try:
        return version("real-time-vision-api")
    except PackageNotFoundError:
        return "source"
