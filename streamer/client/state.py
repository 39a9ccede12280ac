"""Where a stream's connection stands, for status lines and callers who want to know. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias


class Phase(StrEnum):
    """Phases of a connection."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    #: Between two tries; ``State.retry_s`` says how long.
    WAITING = "waiting"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class State:
    """One phase and its circumstances; texts hold no credentials."""

    phase: Phase
    #: The address, or what went wrong.
    detail: str = ""
    retry_s: float | None = None
    #: Whether the server knew the session of the connection before.
    resumed: bool = False


Watcher: TypeAlias = Callable[[State], None]
