"""How many control messages a client may send: a token bucket. Pure."""

from __future__ import annotations

CONTROL_MAX_BYTES = 64 << 10
CONTROL_PER_S = 20.0
#: A burst of short messages at the start of a session, or from a slider, is not abuse.
CONTROL_BURST = 60
#: Messages refused for their rate before the connection is closed.
CONTROL_REFUSALS = 60


class ControlRate:
    """Takes ``now`` in monotonic seconds."""

    def __init__(self, now: float) -> None:
        self._tokens = float(CONTROL_BURST)
        self._at = now
        self._refusals = 0

    def take(self, now: float) -> bool:
        """Count one message; False when it came too soon after the others."""
        self._tokens = min(CONTROL_BURST, self._tokens + (now - self._at) * CONTROL_PER_S)
        self._at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return True
        self._refusals += 1
        return False

    @property
    def exhausted(self) -> bool:
        """Whether so many were refused that the client will not learn."""
        return self._refusals > CONTROL_REFUSALS
