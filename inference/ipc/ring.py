"""Keeps pixels in slots of sealed shared memory, which a worker owns and the inference process reads.

The memory is a ``memfd``: it has no name that could outlive a crash, and ``/dev/shm`` does not limit it.
Its seals (no shrink, no grow) prevent each side from making the mapping of the other fault. Pages take memory
only after their first use, and free slots form a stack, so that a quiet service uses few pages.
"""

from __future__ import annotations

import fcntl
import mmap
import os

import numpy as np
import numpy.typing as npt

from inference.core.errors import RingFull, WireError

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
#: Slots start on page boundaries, so that no two slots share a page.
_PAGE_BYTES = mmap.PAGESIZE


def slot_bytes_for(width: int, height: int) -> int:
    """Return the bytes of a slot for a uint8 HWC frame of this size, in whole pages."""
    return -(-width * height * 3 // _PAGE_BYTES) * _PAGE_BYTES


def _total_bytes(slots: int, slot_bytes: int) -> int:
    """Return the size of a ring: the pixels of all slots, and whole pages for their marks."""
    return slots * slot_bytes + -(-slots // _PAGE_BYTES) * _PAGE_BYTES


class FrameRing:
    """Holds ``slots`` frames of at most ``slot_bytes`` each, and a mark per slot, in one sealed ``memfd``.

    The worker that creates the ring allocates and releases slots; the inference process only maps them. A
    slot is released only after the inference process has answered its frame or died, so that no frame is
    overwritten while it may still be read. The inference process marks the slots whose frames it executes. If
    it dies, the marks tell the worker which frames may have caused that.
    """

    def __init__(self, slots: int, slot_bytes: int, *, number: int = 0, fd: int | None = None) -> None:
        #: Tells the rings of a worker apart, 0 to 255.
        self.number = number
        self.slots = slots
        self.slot_bytes = slot_bytes
        #: Offset of the marks, one byte for each slot, after all pixels.
        self._marks = slots * slot_bytes
        total_bytes = _total_bytes(slots, slot_bytes)
        if fd is None:
            fd = os.memfd_create("frame-ring", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(fd, total_bytes)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        self.fd = fd
        self._memory = mmap.mmap(fd, total_bytes)
        self._pixels: npt.NDArray[np.uint8] = np.frombuffer(self._memory, dtype=np.uint8)
        #: Views by slot, width and height; at most one for each slot and model.
        self._views: dict[tuple[int, int, int], npt.NDArray[np.uint8]] = {}
        self._free = list(range(slots - 1, -1, -1))
        self._used: set[int] = set()

    @classmethod
    def attach(cls, fd: int, slots: int, slot_bytes: int) -> FrameRing:
        """Map a ring that another process made, and take ownership of ``fd``.

        Raises WireError when the memory is not sealed or has another size than stated, because the other side
        could otherwise kill this process with SIGBUS.
        """
        try:
            seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
            size_bytes = os.fstat(fd).st_size
        except OSError as error:
            os.close(fd)
            raise WireError(f"the ring's descriptor is not a memfd: {error}") from error
        if (
            seals & _SEALS != _SEALS
            or min(slots, slot_bytes) < 1
            or size_bytes != _total_bytes(slots, slot_bytes)
        ):
            os.close(fd)
            raise WireError(
                f"a sealed ring of {slots} x {slot_bytes} bytes expected; "
                f"found {size_bytes}, seals {seals:#x}"
            )
        return cls(slots, slot_bytes, fd=fd)

    @property
    def free(self) -> int:
        """Number of slots that can be acquired now."""
        return len(self._free)

    @property
    def idle(self) -> bool:
        """Whether no slot is in use."""
        return not self._used

    def acquire(self) -> int:
        """Take the free slot that was released last. Raises RingFull when there is none."""
        if not self._free:
            raise RingFull(f"all {self.slots} slots are in use")
        slot = self._free.pop()
        self._used.add(slot)
        return slot

    def release(self, slot: int) -> None:
        """Release a slot. Raises ValueError when it is not in use: a double release is a bug."""
        if slot not in self._used:
            raise ValueError(f"slot {slot} is not in use")
        self._used.remove(slot)
        self._free.append(slot)

    def mark(self, slot: int, *, executing: bool) -> None:
        """Mark whether the frame in this slot is being executed. The caller has checked ``slot``."""
        self._memory[self._marks + slot] = executing

    def executing(self, slot: int) -> bool:
        """Return whether the frame in this slot is marked as being executed."""
        return self._memory[self._marks + slot] != 0

    def pixels(self, slot: int, width: int, height: int) -> npt.NDArray[np.uint8]:
        """Return the slot as a writable uint8 array (height, width, 3), a view into shared memory.

        Raises WireError when the slot number or the size is outside the ring.
        """
        view = self._views.get((slot, width, height))
        if view is not None:
            return view
        size_bytes = width * height * 3
        if not 0 <= slot < self.slots or not 0 < size_bytes <= self.slot_bytes:
            raise WireError(f"slot {slot} of {width}x{height} px is outside a ring of {self.slots} slots")
        start = slot * self.slot_bytes
        view = self._pixels[start : start + size_bytes].reshape(height, width, 3)
        self._views[slot, width, height] = view
        return view

    def close(self) -> None:
        """Close the descriptor. The mapping closes when its last array view is freed."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
