"""Sets up the log of a service process, as JSON or as text, with the formatters of `inference`."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable

from inference.core import log_output
from inference.core.log_format import MAX_MESSAGE_CHARS, JsonFormatter, TextFormatter, redact

__all__ = ["MAX_MESSAGE_CHARS", "JsonFormatter", "TextFormatter", "redact", "secrets_of", "set_up_logging"]

#: Environment variables whose values are secrets.
_SECRET_VARIABLES = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


#: Loggers of libraries that log requests and answers with credentials at level debug.
_CREDENTIAL_LOGGERS = ("aiobotocore", "botocore", "urllib3")


def secrets_of(settled: Iterable[str]) -> list[str]:
    """Return the secrets that must not be logged: ``settled``, and those of the environment."""
    return [*settled, *(os.environ[name] for name in _SECRET_VARIABLES if os.environ.get(name))]


def set_up_logging(level: str, log_format: str, settled: Iterable[str] = ()) -> None:
    """Configure the root logger; ``log_format`` is auto, json or text, ``settled`` are secret values."""
    log_output.set_up_logging(level, json_lines=uses_json(log_format), secrets=secrets_of(settled))
    for name in _CREDENTIAL_LOGGERS:
        logging.getLogger(name).setLevel(logging.INFO)


def uses_json(log_format: str) -> bool:
    """Return whether logs are JSON lines: ``json``, or ``auto`` and standard error is not a terminal."""
    return log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
