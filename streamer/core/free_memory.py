"""Returns free memory to the system, which the allocator would keep for the next allocation."""

from __future__ import annotations

import ctypes
import sys

#: glibc's function. Other allocators, such as that of musl or of macOS, have none and need none.
_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform != "win32" else None

CAN_RETURN_MEMORY = _TRIM is not None


def return_free_memory() -> None:
    """Return free memory to the system, which takes milliseconds. Does nothing without glibc."""
    if _TRIM is not None:
        _TRIM(0)
