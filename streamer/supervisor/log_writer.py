"""Writes log lines to standard error in a separate thread, so that a slow reader delays no other thread."""

from __future__ import annotations

import io
import logging
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable

from inference.core.log_format import (
    MAX_MESSAGE_CHARS,
    JsonFormatter,
    TextFormatter,
    hide,
    json_line,
    one_line,
    redact,
    text_line,
)
from inference.core.log_output import dropped, use_handler

#: Most bytes that may wait to be written; the writer drops and counts lines beyond them.
MAX_WAITING_BYTES = 1 << 20
#: How long :meth:`LogWriter.close` waits for the last lines to be written before it gives them up.
CLOSE_S = 1.0


class LogWriter:
    """Keeps a bounded queue of lines for a file descriptor; any thread may add a line without waiting."""

    def __init__(self, fd: int, *, json_lines: bool) -> None:
        self._fd = fd
        self.json_lines = json_lines
        self._lines: deque[bytes] = deque()
        self._waiting_bytes = 0
        #: Lines dropped since the last queued line.
        self._missing = 0
        self._changed = threading.Condition()
        #: None until the first line is queued, so that a process that logs nothing has no writer thread.
        self._thread: threading.Thread | None = None

    def write(self, line: str) -> None:
        """Queue one line, which is given without its line feed."""
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        with self._changed:
            if self._waiting_bytes + len(data) > MAX_WAITING_BYTES:
                self._missing += 1
                dropped("stalled")
                return
            if self._missing:
                note = self.formatted("warning", "streamer.logs", self._note()).encode() + b"\n"
                self._lines.append(note)
                self._waiting_bytes += len(note)
                self._missing = 0
            self._lines.append(data)
            self._waiting_bytes += len(data)
            if self._thread is None:
                # A daemon, because it may be blocked in a write when the process ends.
                self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _note(self) -> str:
        return f"{self._missing} log lines were dropped: standard error was not read"

    def formatted(self, level: str, logger: str, message: str, **more: object) -> str:
        """Return a message as a line in the format of this log; ``more`` is added only in JSON."""
        if self.json_lines:
            return json_line(level, logger, message, time.time(), **more)
        return text_line(level, logger, message, time.time())

    def close(self, timeout_s: float = CLOSE_S) -> bool:
        """Wait until all lines are written; returns False if that takes longer than ``timeout_s``."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting_bytes, timeout_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._lines))
                lines = list(self._lines)
                self._lines.clear()
            for line in lines:
                if not self._write(line):
                    dropped("stalled")
                with self._changed:
                    self._waiting_bytes -= len(line)
                    self._changed.notify_all()

    def _write(self, data: bytes) -> bool:
        """Write a whole line, however long that takes; returns False if it cannot be written."""
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:  # another process made this file description non-blocking
                select.select([], [self._fd], [])
            except OSError:  # the descriptor is closed, the disk is full, or the reader is gone
                return False
        return True


class WriterHandler(logging.Handler):
    """Passes the supervisor's own records to its :class:`LogWriter`."""

    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self._writer = writer
        self.setFormatter(JsonFormatter() if writer.json_lines else TextFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        """Queue one record."""
        self._writer.write(self.format(record))


class WriterText(io.TextIOBase):
    """Replaces ``sys.stderr`` of the supervisor: each complete line becomes a log line."""

    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self._writer = writer
        self._lock = threading.Lock()
        self._begun = ""

    def write(self, text: str) -> int:
        """Write each complete line to the log, and keep the rest until its line is complete."""
        with self._lock:
            *complete, self._begun = (self._begun + text).split("\n")
            self._begun = self._begun[-MAX_MESSAGE_CHARS:]
        for line in complete:
            if self._writer.json_lines:
                self._writer.write(self._writer.formatted("error", "streamer", line))
            else:
                self._writer.write(one_line(redact(line)))
        return len(text)

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor of standard error, for output of native code."""
        return 2


def supervisor_log(level: str, *, json_lines: bool, secrets: Iterable[str]) -> LogWriter:
    """Send the log of this process and its ``sys.stderr`` through a new writer; returns the writer."""
    hide(secrets)
    writer = LogWriter(2, json_lines=json_lines)
    use_handler(WriterHandler(writer), level)
    sys.stderr = WriterText(writer)
    return writer
