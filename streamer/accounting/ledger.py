"""The ledger of one stream: every frame that is received gets exactly one outcome, and the counts balance."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from streamer.protocol.wire import DropReason


@dataclass(slots=True)
class Ledger:
    """Outcomes of the frames of one stream: received = inferred + dropped + failed + in flight."""

    received: int = 0
    inferred: int = 0
    failed: int = 0
    dropped: Counter[DropReason] = field(default_factory=Counter)

    @property
    def in_flight(self) -> int:
        """Number of frames without an outcome so far."""
        return self.received - self.inferred - self.failed - self.dropped.total()
