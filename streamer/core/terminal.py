"""Text output of the commands: lines, and one status line that is rewritten in place. Redacts secrets."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterable
from typing import TextIO

from streamer.core.redact import redact

#: Without a terminal the status is printed as a line at this interval.
PLAIN_INTERVAL_S = 5.0


class Terminal:
    """Writes to standard error; standard output is for data."""

    def __init__(
        self,
        *,
        quiet: bool = False,
        secrets: Iterable[str] = (),
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._quiet = quiet
        self._secrets = tuple(secrets)
        self._clock = clock
        self._is_terminal = self._stream.isatty()
        self._status_shown = False
        self._next_plain_at = 0.0

    def line(self, text: str, *, always: bool = False) -> None:
        """Write a line; with ``always``, even in quiet mode."""
        if self._quiet and not always:
            return
        self._clear()
        self._write(redact(text, self._secrets) + "\n")

    def status(self, text: str) -> None:
        """Replace the status line by ``text``."""
        if self._quiet:
            return
        shown = redact(text, self._secrets)
        if self._is_terminal:
            width = shutil.get_terminal_size().columns
            # One column less: some terminals wrap after the last one.
            self._write(f"\r\x1b[K{shown[: max(1, width - 1)]}")
            self._status_shown = True
        elif self._clock() >= self._next_plain_at:
            self._next_plain_at = self._clock() + PLAIN_INTERVAL_S
            self._write(shown + "\n")

    def _clear(self) -> None:
        if self._status_shown:
            self._write("\r\x1b[K")
            self._status_shown = False

    def close(self) -> None:
        """Remove the status line."""
        self._clear()

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            return  # nobody reads the output any more; the command goes on
