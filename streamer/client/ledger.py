"""Counts what became of every picture offered; the two sums must come out. Pure; the flow owns it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from streamer.client.results import Drop, FrameError, Outcome, Result


@dataclass(slots=True)
class Ledger:
    """``offered = skipped + waiting + sent`` and ``sent = results + dropped + errors + in flight``.

    A skipped picture never left this side; a sent one got a sequence number.
    """

    offered: int = 0
    sent: int = 0
    #: Taken, but not sent yet: waiting for their turn or being encoded.
    waiting: int = 0
    in_flight: int = 0
    results: int = 0
    #: Frames sent again after a reconnect (mode all); they count once in ``sent``.
    resent: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def balance(self) -> int:
        """Pictures that the counts cannot explain: zero, or there is a bug."""
        unsent = self.offered - self.skipped.total() - self.waiting - self.sent
        unfinished = self.sent - self.results - self.dropped.total() - self.errors.total() - self.in_flight
        return abs(unsent) + abs(unfinished)

    def account(self, outcome: Outcome) -> None:
        """Count the outcome of a frame that was sent."""
        if isinstance(outcome, Result):
            self.results += 1
        elif isinstance(outcome, Drop):
            self.dropped[outcome.reason] += 1
        elif isinstance(outcome, FrameError):
            self.errors[outcome.code] += 1

    def copy(self) -> Ledger:
        """Return the counts as they are now."""
        return Ledger(
            self.offered,
            self.sent,
            self.waiting,
            self.in_flight,
            self.results,
            self.resent,
            self.skipped.copy(),
            self.dropped.copy(),
            self.errors.copy(),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the counts as plain values, ``balance`` included."""
        return {
            "offered": self.offered,
            "sent": self.sent,
            "results": self.results,
            "dropped": dict(self.dropped),
            "errors": dict(self.errors),
            "skipped": dict(self.skipped),
            "waiting": self.waiting,
            "in_flight": self.in_flight,
            "resent": self.resent,
            "balance": self.balance,
        }
