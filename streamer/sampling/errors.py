"""What can go wrong in the observer, by what it does about it."""

from __future__ import annotations


class ObserverError(Exception):
    """Root of the observer's errors."""


class SpoolFull(ObserverError):
    """There is no room for another sample; those that wait stay."""


class SpoolInUse(ObserverError):
    """Another observer writes to this spool."""


class SpoolBroken(ObserverError):
    """The spool's folder cannot be made, read or written; the text says which and why."""


class StoreError(ObserverError):
    """Root of what a store says to an object."""


class StoreUnavailable(StoreError):
    """The store does not take anything at the moment; trying again later may help."""


class StoreMisconfigured(StoreError):
    """The store will not take anything before somebody mends a setting; the text says what to do."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        #: One of `metrics.BLOCKS`.
        self.reason = reason


class ObjectRefused(StoreError):
    """The store refuses this one object; others may go."""
