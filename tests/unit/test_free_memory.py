"""Free memory is returned where the allocator can do that, and nothing fails where it cannot."""

from __future__ import annotations

import ctypes
import subprocess
import sys

from streamer.core.free_memory import CAN_RETURN_MEMORY, return_free_memory

#: Imports the module with a C library that has no `malloc_trim`, as on musl.
WITHOUT = """
import ctypes
class Library: pass
ctypes.CDLL = lambda _: Library()
from streamer.core.free_memory import CAN_RETURN_MEMORY, return_free_memory
return_free_memory()
print(CAN_RETURN_MEMORY)
"""


def test_an_allocator_without_the_function_returns_nothing_and_fails_at_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_glibc_returns_memory() -> None:
    assert hasattr(ctypes.CDLL(None), "malloc_trim") == CAN_RETURN_MEMORY
    return_free_memory()
