"""Keeps the state of the selection in a file, so that a restart neither adds nor loses samples.

Without it, a process that restarts often would draw more random samples than promised, or fewer, and each
restart would begin with full budgets.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import msgpack

from streamer.core.durable import write_durably

log = logging.getLogger("streamer.observer")

SCHEMA = 1
#: Seconds between two writes. After a crash, the draws of at most this time are forgotten.
EVERY_S = 10.0
#: The same for what is remembered of images, which is larger. What is forgotten may cost near-duplicates.
MEMORY_EVERY_S = 300.0


class Stateful(Protocol):
    """Has a state that outlives the process."""

    def state(self, now: float, unix_s: float) -> dict[str, Any]:
        """Return the state in types of msgpack."""

    def restore(self, state: Mapping[str, Any], now: float, unix_s: float) -> None:
        """Continue from a state. Raises KeyError, TypeError, ValueError or AttributeError if it is none."""


class SelectionFile:
    """Reads and writes the file. ``now`` is monotonic seconds, ``unix_s`` unix seconds."""

    def __init__(self, path: Path, owner: Stateful, every_s: float = EVERY_S) -> None:
        """Keep the state of ``owner``."""
        self._path = path
        self._owner = owner
        self._every_s = every_s
        self._written = b""
        self._next_at = -math.inf
        #: Whether the last write failed, so that failures are logged once.
        self._failed = False

    def restore(self, now: float, unix_s: float) -> None:
        """Continue from the state in the file; without a usable one, log why and begin anew."""
        try:
            found = msgpack.unpackb(self._path.read_bytes())
            if found["schema"] != SCHEMA:
                raise ValueError(f"its schema is {found['schema']!r}; this version reads {SCHEMA}")  # noqa: TRY301 - logged in one place
            self._owner.restore(found["state"], now, unix_s)
        except FileNotFoundError:
            return
        except (OSError, KeyError, TypeError, ValueError, AttributeError, msgpack.UnpackException) as error:
            log.warning("a part of the selection begins anew, %s cannot be used: %r", self._path, error)

    def tick(self, now: float, unix_s: float) -> None:
        """Write the state if the last write was ``every_s`` ago."""
        if now >= self._next_at:
            self.write(now, unix_s)

    def write(self, now: float, unix_s: float) -> None:
        """Replace the file if the state has changed. A disk that fails costs only the state."""
        self._next_at = now + self._every_s
        data: bytes = msgpack.packb({"schema": SCHEMA, "state": self._owner.state(now, unix_s)})
        if data == self._written:
            return
        aside = self._path.with_name(f".{self._path.name}.new")
        try:
            write_durably(self._path, data, aside, flush_folder=False)
        except OSError as error:
            if not self._failed:
                log.warning("the state of the selection cannot be written: %s", error)
            self._failed = True
        else:
            self._written, self._failed = data, False
