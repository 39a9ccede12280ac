"""Replaces unix time by the test's time in every Python process that has this folder on its path."""

from __future__ import annotations

import mmap
import os
import struct
import time
from pathlib import Path

with Path(os.environ["SIMULATED_CLOCK"]).open("rb") as _file:
    _memory = mmap.mmap(_file.fileno(), 8, access=mmap.ACCESS_READ)


def _now() -> float:
    # Libraries wait for time to pass, so the clock advances slightly even if the test does not change it.
    return float(struct.unpack_from("<d", _memory)[0]) + time.monotonic() % 1000 * 1e-6


time.time = _now
time.time_ns = lambda: int(_now() * 1e9)
