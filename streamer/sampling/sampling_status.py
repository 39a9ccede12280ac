"""How sampling is at the moment, as the board's field ``sampling`` holds it and ``/health`` shows it."""

from __future__ import annotations

from enum import IntEnum


class Standing(IntEnum):
    """One word for people."""

    STARTING = 0
    ON = 1
    OFF = 2
    NO_SPOOL = 3
