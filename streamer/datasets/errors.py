"""What can go wrong with samples, by what a person does about it; `streamer.cli.samples` gives exit codes."""

from __future__ import annotations


class DatasetError(Exception):
    """Root of the errors of `streamer samples`."""


class BadRequest(DatasetError):
    """An option is wrong, or there is nothing to work on; says what was found and what is allowed."""


class CannotRead(DatasetError):
    """A folder, bucket or file cannot be read; says which and why."""


class CannotWrite(DatasetError):
    """A file cannot be written; says which and why."""


class DamagedSample(DatasetError):
    """A sample is not what it should be; says which field or file, and what was found."""
