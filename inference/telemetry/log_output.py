"""Writes the log of a process without ever waiting for its reader; the supervisor starts it with a pipe.

A child's standard error is a pipe of its own in non-blocking mode, which the supervisor reads. A full pipe
means that the reader stalls: lines are dropped, counted, and told in the next one that gets through.
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

from inference.telemetry.log_format import JsonFormatter, TextFormatter, hide, json_line, text_line
from inference.telemetry.log_limit import OncePerSecond

log = logging.getLogger("inference.log_output")

#: Set by the supervisor for its children: ``json`` or ``text``, and that standard error is its pipe.
RELAY_VARIABLE = "STREAMER_LOG_RELAY"
#: Begins a line that is formatted already; other lines in the pipe are what libraries print.
MARK = b"\x1e"
#: Why lines are missing: their kind had its line of this second, or nobody read what was written.
REASONS = ("limit", "stalled")

#: Lines that were not written, by reason, before anybody counted them.
_early: Counter[str] = Counter()
_count: Callable[[str], None] | None = None


def count_dropped(count: Callable[[str], None]) -> None:
    """Tell ``count`` the reason of every line that is not written, from here on and of those before."""
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
    """Writes formatted records into a non-blocking pipe; a record that does not fit is dropped."""

    def __init__(self, fd: int, *, json_lines: bool, mark: bytes = MARK) -> None:
        super().__init__()
        self._fd = fd
        self._mark = mark
        self._json = json_lines
        self.setFormatter(JsonFormatter() if json_lines else TextFormatter())
        #: The end of a line that only fitted in part.
        self._rest = b""
        self._missing = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, or count it. Called under the handler's lock."""
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

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the base class's name
        """Count a record that could not be formatted; the base class would write to standard error."""
        self._drop()

    def _drop(self) -> None:
        self._missing += 1
        dropped("stalled")

    def _encoded(self, line: str) -> bytes:
        return self._mark + line.encode("utf-8", "backslashreplace") + b"\n"

    def _write(self, data: bytes) -> bool:
        """Write a line, or nothing of it; the end of one that fits in part is kept for the next call."""
        try:
            if self._rest:
                self._rest = self._rest[os.write(self._fd, self._rest) :]
                if self._rest:
                    return False
            written = os.write(self._fd, data)
        except OSError:  # full, or the reader is gone
            return False
        self._rest = data[written:]
        return True


class NonBlockingText(io.TextIOBase):
    """Stands in for ``sys.stderr``: what does not fit into the pipe is lost, and nothing raises."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        """Write what fits; returns the length of the text."""
        with self._lock, contextlib.suppress(OSError):
            os.write(self._fd, text.encode("utf-8", "backslashreplace"))
        return len(text)

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor, for what writes natively."""
        return self._fd


def set_up_logging(level: str, *, json_lines: bool, secrets: Iterable[str] = ()) -> None:
    """Configure the root logger of this process.

    Under a supervisor the lines go into its pipe; otherwise to standard error as it is.
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
    """Make ``handler`` the only one, limited to one line a second of each kind; warnings go there too."""
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
        log.critical("this process ends by an error", exc_info=(kind, error, traceback))


def _log_uncaught_in_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is not None and arguments.exc_type is not SystemExit:
        name = arguments.thread.name if arguments.thread is not None else "a thread"
        error = (arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
        log.error("thread %s ends by an error", name, exc_info=error)


def _log_unraisable(arguments: sys.UnraisableHookArgs) -> None:
    if arguments.exc_value is not None:
        error = (arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
        log.warning("an error nobody could handle: %s", arguments.err_msg, exc_info=error)
