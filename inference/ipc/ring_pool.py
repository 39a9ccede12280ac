"""Keeps the frame ring of a worker, which all engines map, and replaces it when necessary."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from inference.ipc.ring import FrameRing


class RingPool:
    """Holds the current ring, and former ones until their last slot is released."""

    def __init__(self) -> None:
        #: None until an engine has announced its models.
        self.current: FrameRing | None = None
        self._former: list[FrameRing] = []
        self._numbers = itertools.count()
        #: Called with each new ring, before its first slot is taken.
        self.on_ring: Callable[[FrameRing], None] = lambda _ring: None
        #: Called with each ring that will not be used any more.
        self.on_dropped: Callable[[FrameRing], None] = lambda _ring: None

    def resize(self, slots: int, slot_bytes: int) -> FrameRing:
        """Make a new ring unless the current one has this size; return the current one."""
        before = self.current
        if before is not None and (before.slots, before.slot_bytes) == (slots, slot_bytes):
            return before
        # Make a new ring instead of resizing: decoders may still write into the old slots.
        self.current = ring = FrameRing(slots, slot_bytes, number=next(self._numbers) % 256)
        if before is not None:
            self._former.append(before)
            self._drop_if_idle(before)
        self.on_ring(ring)
        return ring

    def enlarge(self, slots: int, slot_bytes: int) -> FrameRing:
        """Make a new ring if the current one is smaller than this; return the current one."""
        current = self.current
        if current is None:
            return self.resize(slots, slot_bytes)
        return self.resize(max(slots, current.slots), max(slot_bytes, current.slot_bytes))

    def release(self, ring: FrameRing, slot: int) -> None:
        """Release a slot, and drop a former ring with its last one."""
        ring.release(slot)
        if ring is not self.current:
            self._drop_if_idle(ring)

    def close(self) -> None:
        """Close all rings."""
        for ring in self._former:
            ring.close()
        if self.current is not None:
            self.current.close()

    def _drop_if_idle(self, ring: FrameRing) -> None:
        if ring.idle and ring in self._former:
            self._former.remove(ring)
            self.on_dropped(ring)
            ring.close()
