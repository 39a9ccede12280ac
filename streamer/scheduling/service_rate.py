"""How many seconds of work a version does in a second, and how much of it each client has used lately. Pure.

A second of work is one of decoding or of a model run, as they were measured; several happen at a time.
"""

from __future__ import annotations

import math

from inference.core.fair_share import Flow

#: Time constant of what a client has used lately.
_RECENT_S = 1.0
#: The rate is measured over this time, during all of which work must have waited.
_WINDOW_S = 0.25
#: A window that took longer had a pause in it, as when an inference process was restarted.
_WINDOW_MAX_S = 1.0
_GAIN = 0.3
#: What was measured is forgotten by this much with each work behind which nothing waits.
_FORGOTTEN = 0.002
#: So much of what can be done counts as free for the taking.
_USABLE = 0.9
#: Clients remembered; beyond, those that used the least are forgotten.
_MAX_FLOWS = 512


def most_per_s(decode_s: float, run_s: float, decoders: int, inference_threads: int) -> float:
    """Return the seconds of work a second that images of this cost allow, if nothing else is in the way.

    Whatever is scarcer for them sets the pace: decoders or inference threads.
    """
    images_per_s = min(decoders / max(decode_s, 1e-6), inference_threads / max(run_s, 1e-6))
    return (decode_s + run_s) * images_per_s


class _Usage:
    """Seconds of work per second, with older ones fading."""

    __slots__ = ("_at", "_per_s")

    def __init__(self, now: float) -> None:
        self._per_s = 0.0
        self._at = now

    def add(self, cost_s: float, now: float) -> None:
        self._per_s = self.at(now) + cost_s / _RECENT_S
        self._at = now

    def at(self, now: float) -> float:
        return self._per_s * math.exp(min(0.0, self._at - now) / _RECENT_S)


class ServiceRate:
    """``at_most`` is how many seconds of work can be done in a second, if nothing waits for anything."""

    def __init__(self) -> None:
        #: 0 until it was measured.
        self._per_s = 0.0
        self._window_begun: float | None = None
        self._window_s = 0.0
        self._total = _Usage(0.0)
        self._flows: dict[Flow, _Usage] = {}

    def ended(self, flow: Flow, cost_s: float, now: float, *, backlog: bool, at_most: float) -> None:
        """Account work that has ended; ``backlog`` says whether more waits behind it."""
        self._total.add(cost_s, now)
        usage = self._flows.get(flow)
        if usage is None:
            if len(self._flows) >= _MAX_FLOWS:
                kept = sorted(self._flows, key=lambda each: self._flows[each].at(now))[_MAX_FLOWS // 2 :]
                self._flows = {each: self._flows[each] for each in kept}
            usage = self._flows[flow] = _Usage(now)
        usage.add(cost_s, now)
        self._measure(cost_s, now, backlog=backlog, at_most=at_most)

    def interrupt(self) -> None:
        """The process that does the work has gone: the time until it does some again says nothing."""
        self._window_begun = None

    def _measure(self, cost_s: float, now: float, *, backlog: bool, at_most: float) -> None:
        if not backlog:
            # Nothing waits, so more could be done than was: what was measured slowly loses its weight.
            self._window_begun = None
            if self._per_s:
                self._per_s += _FORGOTTEN * (at_most - self._per_s)
            return
        if self._window_begun is None or now - self._window_begun > _WINDOW_MAX_S:
            self._window_begun, self._window_s = now, 0.0
            return
        self._window_s += cost_s
        length_s = now - self._window_begun
        if length_s >= _WINDOW_S:
            known = self.per_s(at_most)
            self._per_s = known + _GAIN * (self._window_s / length_s - known)
            self._window_begun, self._window_s = now, 0.0

    def per_s(self, at_most: float) -> float:
        """Return the seconds of work a second that all clients have together."""
        return self._per_s or at_most

    def available_per_s(self, flow: Flow, fraction: float, now: float, at_most: float) -> float:
        """Return the seconds of work a second that a client can have: its share, or all that others leave."""
        per_s, own, total = self.per_s(at_most), self.usage_s(flow, now), self._total.at(now)
        # What it has had lately and what nobody has: where all is used, the difference of what is measured in
        # two ways would be larger than the share of one of many clients.
        return max(per_s * fraction, own + max(0.0, per_s * _USABLE - total), 1e-3)

    def usage_s(self, flow: Flow, now: float) -> float:
        """Return the seconds of work that a client has had in the last second or so."""
        usage = self._flows.get(flow)
        return 0.0 if usage is None else usage.at(now)
