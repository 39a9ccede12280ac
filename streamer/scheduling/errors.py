"""Defines the errors that the scheduler raises when it refuses work or gives it up.

The transports decide how to answer the client. The text of each error is a sentence that a client may read.
"""

from __future__ import annotations


class SchedulingError(Exception):
    """Work was refused, or given up before it was done."""

    #: Seconds after which another try may succeed; 0 if no other try would succeed.
    retry_after_s = 0


class UnknownVersion(SchedulingError):
    """No model of this version is served."""


class DeadlineExceeded(SchedulingError):
    """The work was too old when its turn came, or took too long."""

    def __init__(self, detail: str = "The deadline has passed.") -> None:
        super().__init__(detail)


class Refused(SchedulingError):
    """The work is refused now but may be accepted ``retry_after_s`` later."""

    def __init__(self, detail: str, retry_after_s: int) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class OverLimit(Refused):
    """The client itself is over a limit: its quota, its share, or the crashes that its images may cause."""


class Saturated(Refused):
    """More work is waiting, or has been promised to streams, than the server can do in time."""


class Unavailable(Refused):
    """Nothing can run: models are loading, the server is shutting down, or processes with the work died."""
