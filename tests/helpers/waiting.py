"""Waits for conditions that other processes and threads bring about."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_for(condition: Callable[[], object], what: str = "", timeout_s: float = 120.0) -> None:
    """Wait until ``condition()`` holds; raise AssertionError with ``what`` after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what or 'what was waited for'}: not within {timeout_s:g} s")
        time.sleep(0.02)
