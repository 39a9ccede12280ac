"""A clock that a test controls; `sitecustomize` in this folder makes a service's processes use it."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from types import TracebackType

VARIABLE = "SIMULATED_CLOCK"
_FOLDER = Path(__file__).resolve().parent
_SECONDS = struct.Struct("<d")


class SimulatedClock:
    """Sets the unix time of all processes started with ``environment``; monotonic time stays real."""

    def __init__(self, path: Path, now: float) -> None:
        self.now = now
        self._path = path
        path.write_bytes(bytes(8))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 8)
        self.advance(0)

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that make a Python process use this clock."""
        return {VARIABLE: str(self._path), "PYTHONPATH": str(_FOLDER)}

    def advance(self, seconds: float) -> None:
        """Advance the clock by ``seconds``."""
        self.now += seconds
        _SECONDS.pack_into(self._memory, 0, self.now)

    def __enter__(self) -> SimulatedClock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._memory.close()
