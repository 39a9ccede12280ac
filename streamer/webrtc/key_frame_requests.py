"""When a sender is asked for a key frame: at once, then again while none comes, but not more often. Pure."""

from __future__ import annotations

#: A key frame takes a round trip and the sender's next picture; asking sooner gives two of them.
AGAIN_S = 0.250


class KeyFrameRequests:
    """Remembers whether one is wanted; ``now`` in monotonic seconds."""

    def __init__(self) -> None:
        self._asked = -1e9
        self.wanted = False

    def want(self, now: float) -> bool:
        """Something is lost. Returns whether to ask now."""
        self.wanted = True
        return self.again(now)

    def again(self, now: float) -> bool:
        """Whether to ask (again) now; counts as asked."""
        if not self.wanted or now - self._asked < AGAIN_S:
            return False
        self._asked = now
        return True

    def satisfied(self) -> None:
        """A picture was decoded."""
        self.wanted = False
