"""Formats a log record as one line of JSON or text, and removes secrets from it."""

from __future__ import annotations

import json
import logging
import math
import re
import time
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import Any

#: Messages and tracebacks are cut to this length, so that a log line cannot fill a disk.
MAX_MESSAGE_CHARS = 4000
#: Number of characters kept from the beginning of a long traceback. More are kept from its end, which names
#: the error.
_TRACEBACK_HEAD_CHARS = 1000
_MAX_EXTRA_CHARS = 1000
_MAX_EXTRA_ITEMS = 32

_SECRETS = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]{0,15}://)[^/\s@]+@|"
    r"(?P<key>(?:token|key|secret|password|passwd|ticket|signature)[\"']?=)[^&\s]+|"
    r"(?P<pair>[\"'](?:[a-z_-]{0,20}token|api[_-]?key|[a-z_-]{0,20}secret[a-z_-]{0,20}|password|ticket)[\"']:\s*[\"'])[^\"']*|"
    r"(?P<header>(?:x-api-key|x-amz-security-token|authorization|cookie):\s*)(?!bearer\s)[^\r\n]+|"
    r"(?P<bearer>bearer\s+)[^\s\"',]+|"
    r"(?P<jwt>\beyJ[\w-]{6,}\.)[\w.-]+",
    re.IGNORECASE,
)
#: Attributes that every record has. All other attributes come from ``extra`` and go into the JSON entry.
_PLAIN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
#: Fields that are added to each line of the current task, such as the trace of the request that it answers.
LOG_FIELDS: ContextVar[Mapping[str, str] | None] = ContextVar("log_fields", default=None)
#: Values that must never be logged, longest first. Set once in each process.
_hidden: list[str] = []


def hide(values: Iterable[str]) -> None:
    """Hide these values in all log lines. Values shorter than 6 characters are ignored."""
    _hidden[:] = sorted({value for value in values if len(value) >= 6}, key=len, reverse=True)


def redact(text: str) -> str:
    """Replace user info in URLs, tokens, values that look secret, and hidden values by ``***``."""
    for value in _hidden:
        if value in text:
            text = text.replace(value, "***")
    return _SECRETS.sub(_masked, text)


def _masked(match: re.Match[str]) -> str:
    if match["scheme"]:
        return f"{match['scheme']}***@"
    return f"{match[str(match.lastgroup)]}***"


def one_line(text: str) -> str:
    """Escape all characters that could start a line or control a terminal."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode()
        for char in text
    )


def _cut(text: str, chars: int = MAX_MESSAGE_CHARS) -> str:
    return text if len(text) <= chars else text[:chars]


def _cut_traceback(text: str) -> str:
    if len(text) <= MAX_MESSAGE_CHARS:
        return text
    tail = MAX_MESSAGE_CHARS - _TRACEBACK_HEAD_CHARS
    return f"{text[:_TRACEBACK_HEAD_CHARS]}\n… {len(text) - MAX_MESSAGE_CHARS} characters …\n{text[-tail:]}"


def _message_of(record: logging.LogRecord) -> str:
    """Return the message of a record, even if its arguments do not fit its template."""
    try:
        return str(record.getMessage())
    except Exception as error:  # noqa: BLE001 - any object may be an argument; logging must not fail on it
        try:
            return f"{record.msg!s} (its arguments cannot be formatted: {type(error).__name__})"
        except Exception:  # noqa: BLE001 - as above, for the template itself
            return f"(a message that cannot be formatted: {type(error).__name__})"


def _without_surrogates(text: str) -> str:
    """Return the text without lone surrogates, which strict JSON parsers refuse."""
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode("utf-8")


def _plain_value(value: object, depth: int = 0) -> Any:
    """Convert a value of ``extra`` to JSON types."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth < 3 and isinstance(value, Mapping):
        items = list(value.items())[:_MAX_EXTRA_ITEMS]
        return {_plain_text(key): _plain_value(item, depth + 1) for key, item in items}
    if depth < 3 and isinstance(value, list | tuple | set | frozenset):
        return [_plain_value(item, depth + 1) for item in list(value)[:_MAX_EXTRA_ITEMS]]
    return _plain_text(value)


def _plain_text(value: object) -> str:
    try:
        text = str(value)
    except Exception as error:  # noqa: BLE001 - as for messages
        text = f"(cannot be formatted: {type(error).__name__})"
    return _without_surrogates(redact(_cut(text, _MAX_EXTRA_CHARS)))


def json_line(level: str, logger: str, message: str, created: float, **more: object) -> str:
    """Return one JSON object without a line feed; ``created`` is in seconds since 1970."""
    second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(created))
    entry: dict[str, object] = {
        "time": f"{second}.{int(created % 1 * 1e3):03d}Z",
        "level": level,
        "logger": _without_surrogates(logger),
        "message": _without_surrogates(_cut(redact(_cut(message, 2 * MAX_MESSAGE_CHARS)))),
    }
    return json.dumps(entry | more, allow_nan=False)


def text_line(level: str, logger: str, message: str, created: float) -> str:
    """Return one readable line without a line feed: local time, level, logger, message."""
    time_of_day = time.strftime("%H:%M:%S", time.localtime(created))
    text = one_line(_cut(redact(_cut(message, 2 * MAX_MESSAGE_CHARS))))
    return f"{time_of_day} {level.upper():7s} {one_line(logger)}  {text}"


class _Formatter(logging.Formatter):
    def exception_text(self, record: logging.LogRecord) -> str:
        """Return the traceback and the stack of a record, redacted and truncated; empty if it has none."""
        parts = []
        try:
            if record.exc_info:
                parts.append(self.formatException(record.exc_info))
            if record.stack_info:
                parts.append(self.formatStack(record.stack_info))
        except Exception as error:  # noqa: BLE001 - an exception's own text may raise
            parts.append(f"(a traceback that cannot be formatted: {type(error).__name__})")
        return _cut_traceback(redact("\n".join(parts)))


class JsonFormatter(_Formatter):
    """Writes a record as JSON: time (UTC), level, logger, message, `LOG_FIELDS`, extras and exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of valid JSON, whatever it contains."""
        more: dict[str, object] = {
            name: _plain_text(value) for name, value in (LOG_FIELDS.get() or {}).items()
        } | {
            _plain_text(name): _plain_value(value)
            for name, value in record.__dict__.items()
            if name not in _PLAIN
        }
        exception = self.exception_text(record)
        if exception:
            more["exception"] = _without_surrogates(exception)
        return json_line(record.levelname.lower(), record.name, _message_of(record), record.created, **more)


class TextFormatter(_Formatter):
    """Writes a record as one readable line, with `LOG_FIELDS` and a traceback after the message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        line = text_line(record.levelname, record.name, _message_of(record), record.created)
        fields = LOG_FIELDS.get()
        if fields:
            line += one_line("".join(f" {name}={_plain_text(value)}" for name, value in fields.items()))
        exception = self.exception_text(record)
        return f"{line} | {one_line(exception)}" if exception else line
