"""How drift is at the moment, in one word; as the board's field ``drift`` holds it."""

from __future__ import annotations

from enum import IntEnum


class Word(IntEnum):
    """Of several groups, the later word is that of all together."""

    DISABLED = 0
    NO_REFERENCE = 1
    INSUFFICIENT_DATA = 2
    OK = 3
    STALE_REFERENCE = 4
    DRIFT = 5
    ERROR = 6
