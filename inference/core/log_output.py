"""Writes the log of a process without ever waiting for its reader.

The standard error of each child process is a pipe in non-blocking mode, which the supervisor reads. When the
pipe is full, lines are dropped and counted, and the next line that fits reports their number.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import threading
import types
from collections import Counter
from collections.abc import Callable, Iterable

from inference.core.log_format import JsonFormatter, TextFormatter, hide, json_line, text_line
from inference.core.log_limit import OncePerSecond

log = logging.getLogger("inference.log_output")

#: Environment variable that the supervisor sets to ``json`` or ``text`` for children with such a pipe.
RELAY_VARIABLE = "STREAMER_LOG_RELAY"
#: First byte of each formatted line. Lines in the pipe that begin otherwise were printed by libraries.
MARK = b"\x1e"
#: Reasons for missing lines: the limit of one line per second and kind, or a full pipe.
REASONS = ("limit", "stalled")

#: Number of lines that were not written, by reason, before `count_dropped` was called.
_early: Counter[str] = Counter()
_count: Callable[[str], None] | None = None


def count_dropped(count: Callable[[str], None]) -> None:
    """Call ``count`` with the reason of every line that is not written, including earlier ones."""
    global _count
    _count = count
    for reason, number in _early.items():
        for _ in range(number):
            count(reason)
    _early.clear()


def dropped(reason: str) -> None:
    """Count one line that was not written."""
    if _count is None:
        _early[reason] += 1
    else:
        _count(reason)


class PipeHandler(logging.Handler):
    """Writes formatted records into a non-blocking pipe, and drops a record that does not fit."""

    def __init__(self, fd: int, *, json_lines: bool, mark: bytes = MARK) -> None:
        super().__init__()
        self._fd = fd
        self._mark = mark
        self._json = json_lines
        self.setFormatter(JsonFormatter() if json_lines else TextFormatter())
        #: The unwritten rest of a line, if only a part of it fitted into the pipe.
        self._rest = b""
        self._missing = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, or count it as dropped. The logging module holds the lock of the handler."""
        line = self.format(record)
        note = b""
        if self._missing:
            text = f"{self._missing} log lines were dropped: nobody read them"
            make = json_line if self._json else text_line
            note = self._encoded(make("warning", "streamer.logs", text, record.created))
        if self._write(note + self._encoded(line)):
            self._missing = 0
        else:
            self._drop()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - name of the base class
        """Count a record that could not be formatted; the base class would write to standard error."""
        self._drop()

    def _drop(self) -> None:
        self._missing += 1
        dropped("stalled")

    def _encoded(self, line: str) -> bytes:
        return self._mark + line.encode("utf-8", "backslashreplace") + b"\n"

    def _write(self, data: bytes) -> bool:
        """Write a line, or nothing. If it fits only in part, the next call writes its rest first."""
        try:
            if self._rest:
                self._rest = self._rest[os.write(self._fd, self._rest) :]
                if self._rest:
                    return False
            written = os.write(self._fd, data)
        except OSError:  # the pipe is full, or its reader is gone
            return False
        self._rest = data[written:]
        return True


class NonBlockingText(io.TextIOBase):
    """Replaces ``sys.stderr``. Drops text that does not fit into the pipe, and never raises OSError."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        """Write as much as fits, and return the length of the whole text."""
        with self._lock, contextlib.suppress(OSError):
            os.write(self._fd, text.encode("utf-8", "backslashreplace"))
        return len(text)

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor, for native code."""
        return self._fd


def set_up_logging(level: str, *, json_lines: bool, secrets: Iterable[str] = ()) -> None:
    """Configure the root logger of this process.

    Under a supervisor, the lines go into its pipe. Otherwise they go to the unchanged standard error.
    """
    hide(secrets)
    handler: logging.Handler
    relay = os.environ.get(RELAY_VARIABLE)
    if relay:
        handler = PipeHandler(2, json_lines=relay == "json")
        sys.stderr = NonBlockingText(2)
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonFormatter() if json_lines else TextFormatter())
    use_handler(handler, level)


def use_handler(handler: logging.Handler, level: str) -> None:
    """Make ``handler`` the only handler, with one line per second and kind. Python warnings go there, too."""
    handler.addFilter(OncePerSecond(lambda: dropped("limit")))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    # A record that cannot be formatted must not print a traceback of its own.
    logging.raiseExceptions = False
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread
    sys.unraisablehook = _log_unraisable


def _log_uncaught(
    kind: type[BaseException], error: BaseException, traceback: types.TracebackType | None
) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        log.critical("this process ends with an error", exc_info=(kind, error, traceback))


def _log_uncaught_in_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is not None and arguments.exc_type is not SystemExit:
        name = arguments.thread.name if arguments.thread is not None else "a thread"
        error = (arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
        log.error("thread %s ends with an error", name, exc_info=error)


def _log_unraisable(arguments: sys.UnraisableHookArgs) -> None:
    if arguments.exc_value is not None:
        error = (arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
        log.warning("an error that no caller can handle: %s", arguments.err_msg, exc_info=error)
