"""The errors of reading samples and writing datasets; `streamer.cli.samples` maps each to an exit code."""

from __future__ import annotations


class DatasetError(Exception):
    """Root of the errors of `streamer samples`."""


class BadRequest(DatasetError):
    """An option is wrong, or there are no samples; the text says what was found and what is allowed."""


class CannotRead(DatasetError):
    """A folder, bucket or file cannot be read; the text says which one and why."""


class CannotWrite(DatasetError):
    """A file cannot be written; the text says which one and why."""


class DamagedSample(DatasetError):
    """An image or sidecar is missing or damaged; the text names the key or field, and what was found."""
