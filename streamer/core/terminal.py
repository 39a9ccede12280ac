"""Writes text output of the commands: lines without secrets, a status line that is redrawn, and tables."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from streamer.core.redact import redact

if TYPE_CHECKING:
    from streamer.core.status_line import StatusLine

#: Interval at which the status is written as a line where there is no terminal.
PLAIN_INTERVAL_S = 5.0


def is_terminal(stream: TextIO) -> bool:
    """Return whether ``stream`` is a terminal that can redraw lines; FORCE_COLOR does not matter."""
    return stream.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


class Terminal:
    """Writes to standard error; standard output is for data.

    On a terminal the status is drawn by rich, with a bar. Elsewhere it is a plain line every
    `PLAIN_INTERVAL_S`. Thread-safe.
    """

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
        self._is_terminal = is_terminal(self._stream)
        self._lock = threading.RLock()
        #: The status that was shown last; None before the first.
        self._status: StatusLine | None = None
        self._next_plain_at = 0.0

    def line(self, text: str, *, always: bool = False) -> None:
        """Write a line; with ``always``, even in quiet mode."""
        if self._quiet and not always:
            return
        with self._lock:
            self._erase()
            self._write(redact(text, self._secrets) + "\n")

    def error(self, text: str) -> None:
        """Write the line that says why the command failed, in red on a terminal without NO_COLOR."""
        with self._lock:
            self._erase()
            shown = redact(text, self._secrets)
            if self._is_terminal and not os.environ.get("NO_COLOR"):
                shown = f"\x1b[31m{shown}\x1b[0m"
            self._write(shown + "\n")

    def status(self, text: str, share: float | None = None) -> None:
        """Replace the status with ``text``, and a bar if the completed ``share`` (0..1) is known."""
        shown = redact(text, self._secrets)
        if not self._is_terminal:
            # Do not use rich here, so that a device that streams into a log need not load it.
            self._show_plain(lambda: shown if share is None else f"{share:.0%} {shown}")
        elif share is None:
            self._show("text", shown, 0.0, None)
        else:
            self._show("share", shown, share, 1.0)

    def transfer(self, name: str, done: int, total: int | None) -> None:
        """Replace the status with that of a download of ``total`` bytes: share, rate and remaining time."""
        self._show("transfer", name, done, total)

    def close(self) -> None:
        """Remove the status."""
        with self._lock:
            self._erase()
            self._status = None

    def _show(self, layout: str, text: str, done: float, total: float | None) -> None:
        from streamer.core.status_line import StatusLine  # noqa: PLC0415 - loads rich

        if self._quiet:
            return
        with self._lock:
            if self._status is None or self._status.layout != layout:
                self._erase()
                self._status = StatusLine(layout, self._stream, self._clock)
            self._status.update(text, done, total)
            if self._is_terminal:
                with contextlib.suppress(OSError, ValueError):
                    self._status.draw()
            else:
                self._show_plain(self._status.plain)

    def _show_plain(self, line: Callable[[], str]) -> None:
        if self._quiet:
            return
        with self._lock:
            if self._clock() >= self._next_plain_at:
                self._next_plain_at = self._clock() + PLAIN_INTERVAL_S
                self._write(line() + "\n")

    def _erase(self) -> None:
        if self._status is not None and self._is_terminal:
            with contextlib.suppress(OSError, ValueError):
                self._status.erase()

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            return  # nobody reads the output any more, but the command continues


@dataclass(frozen=True, slots=True)
class Table:
    """Holds rows below a title. ``numbers`` names the columns whose cells are numbers."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: frozenset[str] = frozenset()
    #: Line below the rows.
    note: str = ""


def write_tables(tables: Callable[[], Iterable[Table]], plain: Callable[[], str]) -> None:
    """Draw the tables if standard output is a terminal. Otherwise write the text, which programs may read."""
    if is_terminal(sys.stdout):
        for number, table in enumerate(tables()):
            if number:
                sys.stdout.write("\n")
            _draw(table)
    else:
        sys.stdout.write(plain() + "\n")
    sys.stdout.flush()


def _draw(table: Table) -> None:
    from rich import box  # noqa: PLC0415 - only terminals need rich
    from rich.console import Console  # noqa: PLC0415 - see above
    from rich.table import Table as Drawn  # noqa: PLC0415 - see above
    from rich.text import Text  # noqa: PLC0415 - see above

    console = Console(highlight=False)
    console.print(Text(_printable(table.title), "bold"))
    drawn = Drawn(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), header_style="bold cyan")
    # A column without a name holds remarks; leave it out if no row has one.
    shown = [i for i, name in enumerate(table.head) if name or any(row[i] for row in table.rows)]
    for i in shown:
        is_number = table.head[i] in table.numbers
        drawn.add_column(
            Text(table.head[i]),
            justify="right" if is_number else "left",
            style="cyan" if i == 0 and not is_number else "",
            overflow="fold",
        )
    for row in table.rows:
        drawn.add_row(*(Text(_printable(row[i])) for i in shown))
    if table.rows:
        console.print(drawn)
    if table.note:
        console.print(Text(table.note, "dim"))


def _printable(text: str) -> str:
    """Replace control characters, because names from a file or a server may contain escape sequences."""
    return "".join(char if char.isprintable() else "?" for char in text)
