"""Logging for people on a terminal and for machines elsewhere; secrets never pass."""

from __future__ import annotations

import json
import logging
import re
import sys
import time

#: Beyond this a record is cut: a log line must not become a way to fill a disk.
MAX_MESSAGE_CHARS = 4000

_SECRETS = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*://)[^/\s@]+@|(?P<key>(?:token|key|secret|password)=)[^&\s\"']+|"
    r"(?P<bearer>bearer\s+)[^\s\"',]+",
    re.IGNORECASE,
)
#: Attributes every record has; whatever else a call passed as ``extra`` goes into the JSON entry.
_PLAIN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def redact(text: str) -> str:
    """Replace user info in addresses, bearer tokens and secret-like query values by ``***``."""
    return _SECRETS.sub(
        lambda m: f"{m['scheme']}***@" if m["scheme"] else f"{m['key'] or m['bearer']}***", text
    )


class JsonFormatter(logging.Formatter):
    """One JSON object per record: time (UTC), level, logger, message, extras, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry: dict[str, object] = {
            "time": f"{second}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage())[:MAX_MESSAGE_CHARS],
        }
        entry.update({name: value for name, value in record.__dict__.items() if name not in _PLAIN})
        if record.exc_info:
            entry["exception"] = redact(self.formatException(record.exc_info))[:MAX_MESSAGE_CHARS]
        return json.dumps(entry, default=str)


class TextFormatter(logging.Formatter):
    """Readable lines: local time, level, logger, message; control characters are escaped."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s  %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class's name
        """Return the line with secrets replaced."""
        record.message = (
            redact(record.message)[:MAX_MESSAGE_CHARS].replace("\r", "\\r").replace("\x1b", "\\e")
        )
        return super().formatMessage(record)


class AtMostOncePerSecond(logging.Filter):
    """Lets one record a second pass and counts the rest: bad requests must not flood the log."""

    def __init__(self) -> None:
        super().__init__()
        self._next_at = 0.0
        self._held = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether this record is the one of its second."""
        now = time.monotonic()
        if now < self._next_at:
            self._held += 1
            return False
        if self._held:
            record.msg = f"{record.getMessage()} (and {self._held} more like it)"
            record.args = ()
        self._next_at, self._held = now + 1.0, 0
        return True


def set_up_logging(level: str, log_format: str) -> None:
    """Configure the root logger of this process; ``log_format`` is auto, json or text."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if wants_json(log_format) else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in ("aiohttp.server", "asyncio"):
        logging.getLogger(noisy).addFilter(AtMostOncePerSecond())


def wants_json(log_format: str) -> bool:
    """Return whether logs are JSON lines: asked for, or ``auto`` and standard error is no terminal."""
    return log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
