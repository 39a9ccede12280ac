"""Every error of the inference package, in one tree: the caller's fault first, ours second."""

from __future__ import annotations


class InferenceError(Exception):
    """Root of all errors of this package."""


class ModelRefused(InferenceError):
    """A model file cannot be served; says which file, what was expected, what was found and the fix."""

    def __init__(self, path: str, *, expected: str, found: str, fix: str) -> None:
        self.path = path
        self.expected = expected
        self.found = found
        self.fix = fix
        super().__init__(f"{path}: expected {expected}; found {found}. {fix}")


class DeviceUnavailable(InferenceError):
    """The requested execution device cannot be used (and falling back silently is not allowed)."""


class DeadlineExceeded(InferenceError):
    """The item's deadline had passed when its turn came; it was never executed."""


class InferenceFailed(InferenceError):
    """The model raised on this item, alone; other items of its batch were answered."""


class InferenceLost(InferenceError):
    """The inference process died, or was replaced, while it held this item."""

    def __init__(self, text: str, *, executing: bool = False) -> None:
        super().__init__(text)
        #: Whether the item was being executed, so that it may be what the process died of.
        self.executing = executing


class InferenceUnavailable(InferenceError):
    """No inference process is ready: starting, restarting, or its model is still warming up."""


class RingFull(InferenceError):
    """No free slot in this worker's frame ring."""


class WireError(InferenceError):
    """A message between worker and inference process does not parse; the peer is not to be trusted."""
