"""The outbox: messages on their way to one client, and what gives way when it reads too slowly. Pure."""

from __future__ import annotations

from collections import deque
from typing import Any

#: Beyond this the client is not reading at all: about 60 KiB of typical messages.
MAX_MESSAGES = 256


class OutboxFull(Exception):
    """The client reads so slowly that even without stale results nothing more fits."""


class Outbox:
    """Messages in order. While the client is slow, a live stream keeps only its newest result."""

    def __init__(self) -> None:
        self._messages: deque[dict[str, Any]] = deque()

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: dict[str, Any], *, replace_results: bool) -> int:
        """Append a message; returns how many results it replaced (they become drops, so none goes missing).

        Raises OutboxFull when the bound is reached.
        """
        replaced = 0
        if replace_results and message["type"] == "result":
            for older in self._messages:
                if older["type"] == "result" and older["stream"] == message["stream"]:
                    _turn_into_drop(older)
                    replaced += 1
        if len(self._messages) >= MAX_MESSAGES:
            raise OutboxFull(f"{len(self._messages)} messages wait for a client that does not read")
        self._messages.append(message)
        return replaced

    def take(self) -> dict[str, Any] | None:
        """Remove and return the oldest message, or None."""
        return self._messages.popleft() if self._messages else None


def _turn_into_drop(result: dict[str, Any]) -> None:
    """Make an unsent result the drop that it has become for the client; the frame keeps its one outcome."""
    kept = {name: result[name] for name in ("stream", "ack", "win")}
    seq = result["seq"]
    result.clear()
    result.update(type="drop", **kept, reason="superseded")
    result["from"] = result["to"] = seq
