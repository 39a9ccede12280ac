"""Sets up the log of a service process: JSON for machines, text for a terminal; `inference` has the parts."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from inference import log_output
from inference.log_format import MAX_MESSAGE_CHARS, JsonFormatter, TextFormatter, redact

__all__ = ["MAX_MESSAGE_CHARS", "JsonFormatter", "TextFormatter", "redact", "secrets_of", "set_up_logging"]

#: Variables whose values are secrets, whatever reads them.
_SECRET_VARIABLES = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def secrets_of(keys: Iterable[str]) -> list[str]:
    """Return the values that must not be logged: API keys, and credentials in the environment."""
    return [*keys, *(os.environ[name] for name in _SECRET_VARIABLES if os.environ.get(name))]


def set_up_logging(level: str, log_format: str, keys: Iterable[str] = ()) -> None:
    """Configure the root logger of this process; ``log_format`` is auto, json or text."""
    log_output.set_up_logging(level, json_lines=wants_json(log_format), secrets=secrets_of(keys))


def wants_json(log_format: str) -> bool:
    """Return whether logs are JSON lines: asked for, or ``auto`` and standard error is no terminal."""
    return log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
