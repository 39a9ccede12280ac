"""What can go wrong with model files, by what a person does about it; `streamer.cli.models` exits by it."""

from __future__ import annotations


class ModelFileError(Exception):
    """Root of the errors of `streamer models`, besides the refusals of `inference`."""


class BadRequest(ModelFileError):
    """An option, a name, a folder or the catalogue is wrong; says what was found and what is allowed."""


class NotTrusted(ModelFileError):
    """No checksum of the file is known, and nobody said to take it without."""


class PullFailed(ModelFileError):
    """The server cannot be reached, refuses, or sends nothing; what has come stays for the next try."""


class WrongFile(ModelFileError):
    """What came is not the file that the catalogue means; nothing was put into place."""


class CannotWrite(ModelFileError):
    """A file cannot be written or must not be replaced: no room, no permission, another file is there."""


class Unavailable(ModelFileError):
    """A package or a device that this needs is not there; says how to get it."""
