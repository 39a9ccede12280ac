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


class StoreUnavailable(ObserverError):
    """The store does not take anything at the moment; trying again later may help."""
