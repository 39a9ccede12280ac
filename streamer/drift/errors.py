"""Defines the errors of drift detection: of the reference, of an update of it, and of Evidently."""

from __future__ import annotations


class DriftError(Exception):
    """Base class of this folder's errors."""


class ReferenceBroken(DriftError):
    """A reference cannot be read; the text names the place, what was found and what is allowed."""


class UpdateRefused(DriftError):
    """The reference cannot be replaced now; the text says why and what would help."""

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(text)
        #: HTTP status, and a stable code for programs.
        self.status = status
        self.code = code


class EngineFailed(DriftError):
    """Evidently returned no result; the text says why."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        #: One of `missing`, `timeout`, `crashed`, `malformed`.
        self.reason = reason
