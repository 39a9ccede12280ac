"""Reads the output of every child process and writes it to the log, as messages if it comes from libraries.

Decoders repeat warnings as fast as input arrives, so only one message of each kind passes per second. A
traceback, or the output of a native crash, becomes one message.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator

from inference.core.log_limit import Limiter
from inference.core.log_output import MARK, RELAY_VARIABLE, dropped
from streamer.supervisor.log_writer import LogWriter

#: Matches the numbers and addresses that are ignored in the kind of a line. The kind is the text before the
#: first colon.
_VARIABLE = re.compile(r"0x[0-9a-f]+|[0-9]+|\[[^\]]*\]", re.IGNORECASE)
_KIND_CHARS = 48
#: Beginnings of the first line that a crashing interpreter or C library prints. The lines that follow it
#: until the next :meth:`NativeText.flush` belong to the same block.
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
#: Maximum number of messages per second of all kinds together, in case every line is of another kind.
MAX_MESSAGES_PER_S = 10
#: A block ends when no line has followed for this long. Printing a traceback takes longer than printing a
#: warning, because the interpreter reads source files.
SILENCE_S, CRASH_SILENCE_S = 0.1, 1.0
#: A block that a process continues for longer than this ends anyway.
MAX_BLOCK_S = 10.0


class NativeText:
    """Groups the output of one process into messages and limits their rate.

    Call ``feed`` for each line, and ``flush`` at `due` to end the block.
    """

    def __init__(self) -> None:
        self._limiter = Limiter()
        self._block: list[str] = []
        #: Whether the open block is the output of a crash.
        self._crash = False
        #: When the first and the last line of the open block came.
        self._first = self._last = 0.0
        self._second = 0.0
        self._this_second = 0
        #: Lines suppressed since the last call of :meth:`take_held`.
        self._held = 0

    @property
    def due(self) -> float | None:
        """When the open block ends unless a line follows; None if no block is open."""
        if not self._block:
            return None
        silence_s = CRASH_SILENCE_S if self._crash else SILENCE_S
        return min(self._last + silence_s, self._first + MAX_BLOCK_S)

    def feed(self, line: str, now: float) -> list[str]:
        """Add one line without its line feed, and return the messages that it completes."""
        line, self._last = line[:MAX_LINE_CHARS], now
        if self._block and len(self._block) < MAX_BLOCK_LINES:
            if self._crash or line[:1].isspace():
                self._block.append(line)
                return []
        elif self._block and self._crash:
            self._held += 1  # of a crash with too many lines, keep the first ones and the last one
            self._block[-1] = line
            return []
        complete = self.flush(now)
        if line.strip():
            self._block, self._first = [line], now
            self._crash = line.startswith(_CRASHES)
        return complete

    def flush(self, now: float) -> list[str]:
        """Close the open block; return it as a message if the limits allow."""
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


#: Capacity of a pipe, which holds the output of a child while the supervisor does not read.
PIPE_BYTES = 1 << 18
#: Longer lines are split. The service's own lines are shorter.
MAX_LINE_BYTES = 1 << 16


class LogRelay:
    """Writes the output of child processes to the log.

    The service has one relay, which must be constructed in the running event loop.
    """

    def __init__(self, writer: LogWriter) -> None:
        self._writer = writer
        self._pipes: set[_Pipe] = set()

    def environment(self) -> dict[str, str]:
        """Return the variables that make a child format its lines for this log."""
        return {RELAY_VARIABLE: "json" if self._writer.json_lines else "text"}

    @contextlib.contextmanager
    def output_of(self, role: str) -> Iterator[int]:
        """Yield a descriptor for the standard output and error of a child that the log calls ``role``.

        Both ends are non-blocking, so the child never waits for this process.
        """
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        with contextlib.suppress(OSError):  # the kernel refuses a size above the limit of this user
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._pipes.add(_Pipe(role, reader, self._writer, self._pipes.discard))
        try:
            yield writer
        finally:
            os.close(writer)

    def close(self) -> None:
        """Write to the log what is left in the pipes, and close them."""
        for pipe in list(self._pipes):
            pipe.close()


class _Pipe:
    """Reads one child's output in the event loop until every process that writes to it has ended."""

    def __init__(self, role: str, fd: int, writer: LogWriter, on_end: Callable[[_Pipe], None]) -> None:
        self._role = role
        self._fd = fd
        self._writer = writer
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._native = NativeText()
        self._begun = b""
        #: Timer that closes the open block; None if it is not running.
        self._timer: asyncio.TimerHandle | None = None
        self._loop.add_reader(fd, self._read)

    def _read(self) -> bool:
        """Read at most one buffer; return False if nothing is left."""
        try:
            data = os.read(self._fd, MAX_LINE_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._end()
            return False
        *lines, self._begun = (self._begun + data).split(b"\n")
        for line in lines:
            self._take(line)
        if len(self._begun) > MAX_LINE_BYTES:
            self._take(self._begun)
            self._begun = b""
        self._watch_silence()
        return True

    def _take(self, line: bytes) -> None:
        if line.startswith(MARK):
            text = line[len(MARK) :].decode("utf-8", "replace")
            if self._is_complete(text):
                self._writer.write(text)
                return
            line = text.encode()
        # The line comes from a library, or it is a line of the service that was cut while the pipe was full,
        # or into which a library has printed.
        text = line.replace(MARK, b"").decode("utf-8", "replace").rstrip("\r")
        for message in self._native.feed(text, self._loop.time()):
            self._write(message)

    def _is_complete(self, text: str) -> bool:
        if not self._writer.json_lines:
            return text.isprintable()
        try:
            return isinstance(json.loads(text), dict)
        except ValueError:
            return False

    def _write(self, message: str) -> None:
        self._writer.write(self._writer.formatted("warning", "native", message, process=self._role))

    def _watch_silence(self) -> None:
        if self._timer is None and self._native.due is not None:
            self._timer = self._loop.call_at(self._native.due, self._on_silence)

    def _on_silence(self) -> None:
        """Close the block unless a line has followed since the timer was started; then wait again."""
        self._timer = None
        if self._native.due is not None and self._native.due <= self._loop.time():
            self._flush()
        self._watch_silence()

    def _flush(self) -> None:
        for message in self._native.flush(self._loop.time()):
            self._write(message)
        for _ in range(self._native.take_held()):
            dropped("limit")

    def close(self) -> None:
        """Read what is left without waiting, then close; lines that children write later are lost."""
        while self._fd >= 0 and self._read():
            pass
        self._end()

    def _end(self) -> None:
        if self._fd < 0:
            return
        if self._begun:
            self._take(self._begun)
        if self._timer is not None:
            self._timer.cancel()
        self._flush()
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self._fd = -1
        self._on_end(self)
