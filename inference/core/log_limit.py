"""Limits log records to one per second and kind and counts the others, so that input cannot flood the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

#: Top-level loggers of this project. Each of their message templates is a kind of its own. Libraries may
#: put input into their templates, so all records of one level from one library logger are one kind.
_OWN = ("streamer", "inference")
#: Loggers without a limit. Operators, administrators or processes cause their records; clients cannot.
UNLIMITED = ("streamer.supervisor", "inference.process", "streamer.audit")
INTERVAL_S = 1.0
#: When there are this many kinds, all further ones count as one.
MAX_KINDS = 256


class Limiter:
    """Decides by kind and time whether a line passes, and counts those that were held back. No I/O."""

    def __init__(self) -> None:
        #: Maps each kind to the time when its next line may pass, and the number of lines held back since the
        #: last one.
        self._kinds: dict[str, tuple[float, int]] = {}

    def passes(self, kind: str, now: float) -> int | None:
        """Return the number of lines held back before this one if it passes; None to hold it back."""
        if kind not in self._kinds and len(self._kinds) >= MAX_KINDS:
            self._forget(now)
            if len(self._kinds) >= MAX_KINDS:
                kind = ""
        next_at, held = self._kinds.get(kind, (0.0, 0))
        if now < next_at:
            self._kinds[kind] = next_at, held + 1
            return None
        self._kinds[kind] = now + INTERVAL_S, 0
        return held

    def _forget(self, now: float) -> None:
        """Forget kinds without recent lines and without a count to report."""
        self._kinds = {
            kind: (next_at, held) for kind, (next_at, held) in self._kinds.items() if held or next_at > now
        }


class OncePerSecond(logging.Filter):
    """Lets one record of a kind pass per second, and calls ``count`` for each record that it holds back."""

    def __init__(
        self,
        count: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        unlimited: tuple[str, ...] = UNLIMITED,
    ) -> None:
        super().__init__()
        self._count = count
        self._clock = clock
        self._unlimited = unlimited
        self._limiter = Limiter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether this record passes."""
        if record.name in self._unlimited:
            return True
        kind = f"{record.name}\n{record.levelno}"
        if record.name.partition(".")[0] in _OWN:
            kind += f"\n{str(record.msg)[:200]}"
        held = self._limiter.passes(kind, self._clock())
        if held is None:
            self._count()
            return False
        if held:
            record.msg = f"{_message(record)} (and {held} more like it)"
            record.args = ()
        return True


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - the arguments may not fit the template
        return str(record.msg)
