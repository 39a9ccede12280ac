"""The errors of `streamer models`, one class for each exit code; `streamer.cli.models` maps them."""

from __future__ import annotations


class ModelFileError(Exception):
    """Root of the errors of `streamer models`, beside those that `inference` raises."""


class BadRequest(ModelFileError):
    """An option, name, folder or registry is wrong; the text says what was found and what is allowed."""


class NotTrusted(ModelFileError):
    """No checksum of the file is known, and `--trust` was not given."""


class PullFailed(ModelFileError):
    """The server cannot be reached, refuses, or stops sending. The next call resumes the download."""


class WrongFile(ModelFileError):
    """The download is not the file that the registry describes. Nothing was installed."""


class CannotWrite(ModelFileError):
    """A file cannot be written: no space, no permission, or another file has its name."""


class Unavailable(ModelFileError):
    """A required package or device is missing; the text says how to get it."""
