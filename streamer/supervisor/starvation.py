"""Tells a process that hangs from one that gets no processor, by what the kernel's scheduler says of it."""

from __future__ import annotations

import time
from pathlib import Path

#: A process whose busiest thread waited for a processor for this share of the time is starved, not hung.
STARVED_SHARE = 0.5


class Starvation:
    """How long the threads of one process have waited for a processor since it was constructed."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._begun = time.monotonic()
        self._waited = _waited_s(pid)

    @property
    def starved(self) -> bool:
        """Whether one of its threads wanted to run for most of the time and could not."""
        if _waits_for_disk(self._pid):
            return True
        lasted_s = time.monotonic() - self._begun
        now = _waited_s(self._pid)
        longest_s = max((now[thread] - self._waited.get(thread, 0.0) for thread in now), default=0.0)
        return lasted_s > 0 and longest_s >= STARVED_SHARE * lasted_s


def _waited_s(pid: int) -> dict[str, float]:
    """Return by thread how long it has waited on a run queue; empty where the kernel does not say."""
    found = {}
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found[thread.name] = int((thread / "schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        pass
    return found


def _waits_for_disk(pid: int) -> bool:
    """Whether its main thread waits where no signal reaches it: for a disk, or a file server."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "D"
    except (OSError, IndexError):
        return False
