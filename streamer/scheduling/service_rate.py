"""Measures the seconds of work that a version does per second, and each client's recent share of it. Pure.

A second of work is a measured second of decoding or of a model run. Several processes work at the same time,
so a version can do several seconds of work per second.
"""

from __future__ import annotations

import math

from inference.core.fair_queueing import Flow

#: Time constant of a client's recent use.
_RECENT_S = 1.0
#: Length of a window in which the rate is measured. It is used only if work was waiting during all of it.
_WINDOW_S = 0.25
#: A longer window contains a pause, such as a restart of the inference process, and is discarded.
_WINDOW_MAX_S = 1.0
_GAIN = 0.3
#: When a piece of work ends and no other work waits, the measured rate moves by this fraction towards the
#: possible one.
_FORGOTTEN = 0.002
#: Fraction of the rate that counts as available.
_USABLE = 0.9
#: Number of clients that are remembered. Beyond it, those that used the least are forgotten.
_MAX_FLOWS = 512


def most_per_s(decode_s: float, run_s: float, decoders: int, inference_threads: int) -> float:
    """Return the seconds of work per second that are possible with images of this cost.

    The rate is limited by the decoders or by the inference threads, whichever are slower.
    """
    images_per_s = min(decoders / max(decode_s, 1e-6), inference_threads / max(run_s, 1e-6))
    return (decode_s + run_s) * images_per_s


class _Usage:
    """Measures seconds of work per second, as an exponentially decaying average."""

    __slots__ = ("_at", "_per_s")

    def __init__(self, now: float) -> None:
        self._per_s = 0.0
        self._at = now

    def add(self, cost_s: float, now: float) -> None:
        self._per_s = self.at(now) + cost_s / _RECENT_S
        self._at = now

    def at(self, now: float) -> float:
        past_s = self._at - now
        return self._per_s * math.exp(past_s / _RECENT_S) if past_s < 0 else self._per_s


class ServiceRate:
    """Measures the service rate of a version and the recent use of each client.

    ``at_most`` is the possible number of seconds of work per second, as :func:`most_per_s` computes it.
    """

    def __init__(self) -> None:
        #: Measured rate; 0 until there is one.
        self._per_s = 0.0
        self._window_begun: float | None = None
        self._window_s = 0.0
        self._total = _Usage(0.0)
        self._flows: dict[Flow, _Usage] = {}

    def ended(self, flow: Flow, cost_s: float, now: float, *, backlog: bool, at_most: float) -> None:
        """Account work that has ended; ``backlog`` says whether more work waits behind it."""
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
        """Discard the current window: a process was lost, and the time of its restart must not count."""
        self._window_begun = None

    def _measure(self, cost_s: float, now: float, *, backlog: bool, at_most: float) -> None:
        if not backlog:
            # No work waits, so more work could have been done, and the measured rate may be too low. It moves
            # towards the possible rate.
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
        """Return the seconds of work per second that all clients get together."""
        return self._per_s or at_most

    def available_per_s(self, flow: Flow, fraction: float, now: float, at_most: float) -> float:
        """Return the seconds of work per second that a client can get: its share, or what others leave."""
        per_s, own, total = self.per_s(at_most), self.usage_s(flow, now), self._total.at(now)
        # The client can get its share, or its own use and what is left unused. The own use is added because,
        # if everything is used, the rest is a difference of two measurements, and its error could exceed what
        # one client among many gets.
        return max(per_s * fraction, own + max(0.0, per_s * _USABLE - total), 1e-3)

    def total_s(self, now: float) -> float:
        """Return the seconds of work that all clients together got in about the last second."""
        return self._total.at(now)

    def usage_s(self, flow: Flow, now: float) -> float:
        """Return the seconds of work that a client got in about the last second."""
        usage = self._flows.get(flow)
        return 0.0 if usage is None else usage.at(now)
