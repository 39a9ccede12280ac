"""Gives memory back to the system after a peak of bodies and messages; the allocator would keep it."""

from __future__ import annotations

import ctypes

from streamer.core.byte_budget import ByteBudget

#: A peak from which on it is worth the milliseconds, and the rest at which it is over.
_PEAK_BYTES = 8 << 20
_OVER_BYTES = 1 << 20


class MemoryReturn:
    """Asked once a second whether a peak is over. Nothing is done where the allocator is not glibc's."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._peak_bytes = 0
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)

    def due(self) -> bool:
        """Whether memory should be given back now."""
        held_bytes = self._budget.held_bytes
        self._peak_bytes = max(self._peak_bytes, self._budget.take_peak())
        if self._trim is None or self._peak_bytes < _PEAK_BYTES or held_bytes > _OVER_BYTES:
            return False
        self._peak_bytes = 0
        return True

    def give_back(self) -> None:
        """Give free pages back; takes milliseconds."""
        if self._trim is not None:
            self._trim(0)
