"""Defines the errors of the sampling process: one class for each way in which it reacts to them."""

from __future__ import annotations


class SamplingError(Exception):
    """Base class of this folder's errors."""


class SpoolFull(SamplingError):
    """The spool has no room for another sample; it keeps the samples that it has."""


class SpoolInUse(SamplingError):
    """Another sampling process has locked this spool."""


class SpoolBroken(SamplingError):
    """The spool's folder cannot be created, read or written; the text names it and says why."""


class StoreError(SamplingError):
    """Base class of the errors that a store raises when it does not store an object."""


class StoreUnavailable(StoreError):
    """The store accepts nothing at the moment; trying again later may help."""


class StoreMisconfigured(StoreError):
    """The store accepts nothing until a person corrects a setting; the text says what to do."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        #: One of `metrics.BLOCKS`.
        self.reason = reason


class ObjectRefused(StoreError):
    """The store refuses this object but may accept others."""
