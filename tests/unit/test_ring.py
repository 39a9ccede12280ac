"""The ring hands no slot out twice, allows no access outside its memory and refuses unsealed memory."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from inference.core.errors import RingFull, WireError
from inference.ipc.ring import FrameRing, slot_bytes_for


def test_pixels_written_by_one_side_are_read_by_the_other() -> None:
    ring = FrameRing(2, slot_bytes_for(8, 4))
    other = FrameRing.attach(os.dup(ring.fd), 2, ring.slot_bytes)
    slot = ring.acquire()
    ring.pixels(slot, 8, 4)[:] = 7
    assert (other.pixels(slot, 8, 4) == 7).all()
    assert other.pixels(slot, 8, 4).shape == (4, 8, 3)


def test_slots_do_not_overlap() -> None:
    ring = FrameRing(3, slot_bytes_for(5, 5))
    for slot in range(3):
        ring.pixels(slot, 5, 5)[:] = slot + 1
    assert [int(np.unique(ring.pixels(slot, 5, 5))[0]) for slot in range(3)] == [1, 2, 3]


def test_a_slot_holds_images_of_any_size_that_fits() -> None:
    """Views of different sizes on one slot, as two models need them, share the slot's memory."""
    ring = FrameRing(2, slot_bytes_for(8, 4))
    large, small = ring.pixels(1, 8, 4), ring.pixels(1, 2, 3)
    large[:] = 9
    assert (ring.pixels(1, 2, 3) == 9).all()
    assert (small.shape, ring.pixels(1, 8, 4).shape) == ((3, 2, 3), (4, 8, 3))
    assert not ring.pixels(0, 8, 4).any()
    for slot, width, height in ((2, 8, 4), (-1, 8, 4), (1, 80, 40), (1, 0, 4)):
        with pytest.raises(WireError, match="outside"):
            ring.pixels(slot, width, height)


def test_the_memory_can_neither_shrink_nor_grow() -> None:
    ring = FrameRing(1, 4096)
    for size in (0, 1 << 20):
        with pytest.raises(PermissionError):
            os.ftruncate(ring.fd, size)


def test_an_unsealed_or_short_memory_is_refused() -> None:
    fd = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 4096)
    with pytest.raises(WireError, match="sealed"):
        FrameRing.attach(fd, 1, 4096)
    ring = FrameRing(1, 4096)
    with pytest.raises(WireError, match="expected"):
        FrameRing.attach(os.dup(ring.fd), 2, 4096)


def test_a_descriptor_that_is_no_memory_is_refused() -> None:
    reader, writer = os.pipe()
    os.close(writer)
    with pytest.raises(WireError, match="memfd"):
        FrameRing.attach(reader, 1, 4096)


@pytest.mark.parametrize(("slot", "width", "height"), [(-1, 4, 4), (2, 4, 4), (0, 0, 4), (0, 4000, 4000)])
def test_slots_and_sizes_outside_the_ring_are_refused(slot: int, width: int, height: int) -> None:
    with pytest.raises(WireError):
        FrameRing(2, 4096).pixels(slot, width, height)


class RingMachine(RuleBasedStateMachine):
    """Acquires and releases slots in any order; no slot is owned twice or lost."""

    def __init__(self) -> None:
        super().__init__()
        self.ring = FrameRing(4, 4096)
        self.owned: set[int] = set()

    @rule()
    def acquire(self) -> None:
        if len(self.owned) == 4:
            with pytest.raises(RingFull):
                self.ring.acquire()
            return
        slot = self.ring.acquire()
        assert slot not in self.owned
        self.owned.add(slot)

    @precondition(lambda self: self.owned)
    @rule()
    def release(self) -> None:
        slot = self.owned.pop()
        self.ring.release(slot)
        with pytest.raises(ValueError, match="not in use"):
            self.ring.release(slot)

    @invariant()
    def adds_up(self) -> None:
        assert self.ring.free + len(self.owned) == 4


RingMachine.TestCase.settings = settings(max_examples=50, deadline=None)
TestRing = RingMachine.TestCase
