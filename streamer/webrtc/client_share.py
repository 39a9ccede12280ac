"""How many sessions one client may have beside others. Pure.

A session costs its client one request and us sockets and ten seconds, so those that have sent no video yet
are limited more strictly than those that work.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Offers of one client that wait for their video; a page that reconnects in two tabs has two.
_LEAST_PENDING = 4


class ShareUsedUp(Exception):
    """The client has as many sessions as it may; the text is for it."""

    def __init__(self, text: str, retry_after_s: int) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class ClientShare:
    """Shares of ``sessions``, the most that there may be of all clients."""

    sessions: int

    @property
    def most(self) -> int:
        """Sessions of one client: three quarters, so that there is room for another."""
        return max(1, self.sessions - self.sessions // 4)

    @property
    def most_pending(self) -> int:
        """Sessions of one client that have sent no video yet: an eighth."""
        return min(self.most, max(_LEAST_PENDING, self.sessions // 8))

    def check(self, held: int, pending: int, quota: int | None) -> None:
        """Raise ShareUsedUp unless a client with ``held`` sessions, ``pending`` of them, may have one more.

        ``quota`` is the most that its key allows, None where its key says nothing.
        """
        if pending >= self.most_pending:
            raise ShareUsedUp(
                f"{pending} sessions of this client have sent no video yet, which is the most at a time.", 2
            )
        most = self.most if quota is None else min(quota, self.sessions)
        if held >= most:
            raise ShareUsedUp(f"This client has {held} WebRTC sessions open, which is its share.", 5)
