"""How many WebSockets may be open without an accepted hello: per client address, and in all. Pure."""

from __future__ import annotations

from collections import Counter

from streamer.http.problem_details import Problem

#: Many clients of one network come back at once after a restart; each needs one round trip.
MOST_PER_ADDRESS = 64
MOST_IN_ALL = 512
#: A hello is due within seconds, so places become free as fast.
_RETRY_S = 2


class GreetingSlots:
    """Places of sockets that have not greeted yet; whoever takes one gives it back."""

    def __init__(self, per_address: int = MOST_PER_ADDRESS, in_all: int = MOST_IN_ALL) -> None:
        self._per_address = per_address
        self._in_all = in_all
        self._taken: Counter[str] = Counter()
        self._count = 0

    def take(self, address: str) -> None:
        """Take a place. Raises Problem 503 when the address, or everyone together, has no more."""
        if self._count >= self._in_all or self._taken[address] >= self._per_address:
            raise Problem.unavailable(
                "Too many connections have not sent their hello yet; try again.", retry_after_s=_RETRY_S
            )
        self._taken[address] += 1
        self._count += 1

    def give_back(self, address: str) -> None:
        """Give a place back; once for each that was taken."""
        self._count -= 1
        self._taken[address] -= 1
        if not self._taken[address]:
            del self._taken[address]

    def __len__(self) -> int:
        return self._count
