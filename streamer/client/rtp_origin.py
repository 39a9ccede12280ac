"""Finds which frame a result belongs to when all that is known is a clock with an unknown beginning.

RTP timestamps of a sender are its own times plus a random number that its library does not tell. The times
here are dithered, so that the distances between frames differ and only one number explains the results.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable

#: Up to 2.8 ms: invisible, and enough that two pairs of 30 frames are hardly ever as far apart.
DITHER_TICKS = 256
#: Encoders convert times, and are off by one now and then.
TOLERANCE_TICKS = 2
_WRAP = 1 << 32


def dithered(ticks: int) -> int:
    """Return a time on the 90 kHz clock, a little later by chance."""
    return ticks + random.randrange(DITHER_TICKS)  # noqa: S311 - no secret


class RtpOrigin:
    """Learns the random number from results; :meth:`to_pts` answers once it is sure."""

    def __init__(self) -> None:
        #: What the number may be; None before the first result.
        self._candidates: list[int] | None = None

    def learn(self, rtp: int, sent: Iterable[int]) -> None:
        """A result for ``rtp`` came, for one of the frames sent with these times."""
        possible = [(rtp - pts) % _WRAP for pts in sent]
        if not possible or self.known:
            return
        before = possible if self._candidates is None else self._candidates
        narrowed = [number for number in before if any(_same(number, other) for other in possible)]
        # None left: a frame was forgotten meanwhile, so begin anew.
        self._candidates = narrowed or possible

    @property
    def known(self) -> bool:
        """Whether the number is known."""
        return self._candidates is not None and len(self._candidates) == 1

    def to_pts(self, rtp: int, sent: Collection[int]) -> int | None:
        """Return which of the times in ``sent`` has this RTP timestamp; None when that is not known."""
        if self._candidates is None or len(self._candidates) != 1:
            return None
        wanted = rtp - self._candidates[0]
        return next((pts for pts in sent if _same(pts, wanted)), None)


def _same(one: int, other: int) -> bool:
    """Whether two times on the 32-bit clock are the same but for rounding."""
    return (one - other + TOLERANCE_TICKS) % _WRAP <= 2 * TOLERANCE_TICKS
