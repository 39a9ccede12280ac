"""Turns the output of libraries and interpreters into log messages: blocks of lines, limited by kind. Pure.

Decoders repeat warnings as fast as input arrives, so one message per second of each kind passes; a traceback
or a native crash is one message.
"""

from __future__ import annotations

import re

from inference.telemetry.log_limit import Limiter

#: The text before the first colon is the kind of a line; numbers and addresses in it are ignored.
_VARIABLE = re.compile(r"0x[0-9a-f]+|[0-9]+|\[[^\]]*\]", re.IGNORECASE)
_KIND_CHARS = 48
#: First lines of the output of a crashing interpreter or C library; the block lasts until it is silent.
_CRASHES = (
    "Traceback (most recent call last)",
    "Fatal Python error",
    "Exception ignored in",
    "Current thread",
    "Thread 0x",
    "terminate called",
    "*** ",
    "double free",
    "malloc",
    "corrupted ",
)
MAX_BLOCK_LINES = 200
MAX_LINE_CHARS = 1000
#: Messages per second of all kinds together, in case every line is of another kind.
MAX_MESSAGES_PER_S = 10


class NativeText:
    """The output of one process. Call ``feed`` for each line, and ``flush`` after a silence."""

    def __init__(self) -> None:
        self._limiter = Limiter()
        self._block: list[str] = []
        #: Whether the open block is the output of a crash.
        self.crash = False
        self._second = 0.0
        self._this_second = 0
        #: Lines suppressed since the last call of :meth:`take_held`.
        self._held = 0

    @property
    def open(self) -> bool:
        """Whether a block waits for its next line, or for :meth:`flush`."""
        return bool(self._block)

    def feed(self, line: str, now: float) -> list[str]:
        """Add one line without its line feed; returns complete messages."""
        line = line[:MAX_LINE_CHARS]
        if self._block and len(self._block) < MAX_BLOCK_LINES:
            if self.crash or line[:1].isspace():
                self._block.append(line)
                return []
        elif self._block and self.crash:
            self._held += 1  # the middle of an endless traceback
            self._block[-1] = line
            return []
        complete = self.flush(now)
        if line.strip():
            self._block = [line]
            self.crash = line.startswith(_CRASHES)
        return complete

    def flush(self, now: float) -> list[str]:
        """Close the open block; returns it if the limits allow."""
        block, self._block = self._block, []
        if not block:
            return []
        held = self._limiter.passes(_kind_of(block[0]), now)
        if held is None or not self._within_all(now):
            self._held += len(block)
            return []
        message = "\n".join(block).rstrip()
        return [f"{message} (and {held} more like it)" if held else message]

    def _within_all(self, now: float) -> bool:
        if now >= self._second + 1.0:
            self._second, self._this_second = now, 0
        self._this_second += 1
        return self._this_second <= MAX_MESSAGES_PER_S

    def take_held(self) -> int:
        """Return the number of lines suppressed since the last call."""
        held, self._held = self._held, 0
        return held


def _kind_of(line: str) -> str:
    return _VARIABLE.sub("#", line.partition(":")[0])[:_KIND_CHARS]
