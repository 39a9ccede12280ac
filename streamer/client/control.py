"""What a caller has asked of the server and what is in effect: parameters, their number, pause. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamer.client.params import Params


class Control:
    """Outlives connections: :meth:`replay` brings a new one to where the last was."""

    def __init__(self, params: Params) -> None:
        self.params = params
        self.paused = False
        #: As the server states them; empty before the first welcome.
        self.effective: Mapping[str, Any] = {}
        #: Number of the newest configure that was sent, and of the newest that was answered.
        self._asked = 0
        self._answered = 0
        #: The server's words for why the newest was refused.
        self.refusal: str | None = None

    def change(self, changes: Params) -> int:
        """Note changes that are about to be asked for; returns their number."""
        self.params = self.params.merged(changes)
        self.refusal = None
        self._asked += 1
        return self._asked

    def configure_message(self) -> dict[str, Any]:
        """Return the message that asks for the newest parameters."""
        return {"type": "configure", "cfg": self._asked, "params": self.params.to_wire()}

    def pause_message(self, *, paused: bool) -> dict[str, Any]:
        """Note a pause or its end; returns the message that says so."""
        self.paused = paused
        return {"type": "pause" if paused else "resume", "stream": 0}

    def replay(self) -> list[dict[str, Any]]:
        """Return what a new connection must be told besides its hello: a new session knows nothing."""
        messages = [self.configure_message()] if self._asked else []
        return [*messages, self.pause_message(paused=True)] if self.paused else messages

    def decided(self, number: int) -> bool:
        """Whether the server has answered a change."""
        return self._answered >= number or self.refusal is not None

    def in_effect(self, number: int) -> bool:
        """Whether the server has confirmed a change."""
        return self._answered >= number

    def welcomed(self, message: Mapping[str, Any]) -> None:
        """Take in a welcome."""
        self.effective = message.get("params", {})

    def received(self, message: Mapping[str, Any]) -> None:
        """Take in a ``configured``, or an error that refuses a change."""
        if message["type"] == "configured":
            self._answered = max(self._answered, int(message.get("cfg", 0)))
            self.effective = message.get("params", {})
        elif message["type"] == "error" and self._answered < self._asked:
            about_params = str(message.get("field", "")).startswith("params")
            if about_params or message.get("code") == "rate_limited":
                self.refusal = str(message.get("message", "refused"))
