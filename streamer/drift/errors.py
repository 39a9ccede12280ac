"""What can go wrong with drift, by whose fault it is."""

from __future__ import annotations


class DriftError(Exception):
    """Root of this folder's errors."""


class ReferenceBroken(DriftError):
    """A reference cannot be read; the text names the place, what was found and what is allowed."""


class UpdateRefused(DriftError):
    """A reference is not replaced at the moment; the text says why and what would do it."""

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(text)
        #: HTTP status, and a stable word for programs.
        self.status = status
        self.code = code


class EngineFailed(DriftError):
    """Evidently gave no answer; the text says why."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        #: One of `missing`, `timeout`, `crashed`, `malformed`.
        self.reason = reason
