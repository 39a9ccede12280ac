"""Defines all errors of the inference package in one class tree."""

from __future__ import annotations


class InferenceError(Exception):
    """Root of all errors of this package."""


class ModelRefused(InferenceError):
    """A model file cannot be served. The text names the file, what was expected and found, and the fix."""

    def __init__(self, path: str, *, expected: str, found: str, fix: str) -> None:
        self.path = path
        self.expected = expected
        self.found = found
        self.fix = fix
        super().__init__(f"{path}: expected {expected}; found {found}. {fix}")


class DeviceUnavailable(InferenceError):
    """The requested device cannot be used, and a silent fallback is not allowed."""


class DeadlineExceeded(InferenceError):
    """The deadline of the item passed before it could be executed."""


class InferenceFailed(InferenceError):
    """The model failed on this item. Other items of its batch were answered."""


class InferenceLost(InferenceError):
    """The inference process died, or was replaced, while it held this item."""

    def __init__(self, text: str, *, executing: bool = False) -> None:
        super().__init__(text)
        #: Whether the item was being executed, so that it may have caused the death of the process.
        self.executing = executing


class InferenceUnavailable(InferenceError):
    """No inference process is ready: it is starting or restarting, or its model is still warming up."""


class RingFull(InferenceError):
    """This worker's frame ring has no free slot."""


class WireError(InferenceError):
    """A message between worker and inference process does not parse, so its receiver distrusts the sender."""
