"""The field ``behavior`` of an HPA: how fast, and after which delay, the number of replicas may change. Pure.

Source: "Configurable scaling behavior" in
https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/, and the functions
stabilizeRecommendationWithBehaviors and calculateScaleUpLimitWithScalingRules of the controller.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Literal

from streamer.simulation.errors import BadScenario

Select = Literal["Max", "Min", "Disabled"]


@dataclass(frozen=True, slots=True)
class Policy:
    """Allows a change by ``value`` pods, or percent of the replicas, within ``period_s`` seconds."""

    kind: Literal["Pods", "Percent"]
    value: int
    period_s: int

    @classmethod
    def parse(cls, text: str) -> Policy:
        """Read a policy such as ``4/60`` (pods per 60 s) or ``50%/60``. Raises BadScenario."""
        amount, slash, period = text.strip().partition("/")
        value = amount.removesuffix("%")
        if not (
            slash and value.isdecimal() and period.isdecimal() and int(value) and 0 < int(period) <= 1800
        ):
            raise BadScenario(
                f"--up, --down: expected PODS/SECONDS or PERCENT%/SECONDS (1 to 1800 s); found {text!r}"
            )
        return cls("Percent" if amount.endswith("%") else "Pods", int(value), int(period))

    def __str__(self) -> str:
        return f"{self.value}{'%' if self.kind == 'Percent' else ''}/{self.period_s}"


@dataclass(frozen=True, slots=True)
class Rules:
    """Holds what applies in one direction."""

    #: Seconds for which the most cautious recommendation counts.
    window_s: int
    policies: tuple[Policy, ...]
    #: Which policy applies if there are several: the one that allows the largest or the smallest change.
    select: Select = "Max"


@dataclass(frozen=True, slots=True)
class Behavior:
    """Holds the rules for both directions."""

    up: Rules
    down: Rules


#: What the chart sets (``autoscaling.behavior`` in its values).
CHART = Behavior(
    up=Rules(0, (Policy("Pods", 4, 60), Policy("Percent", 100, 60))),
    down=Rules(600, (Policy("Pods", 1, 60), Policy("Percent", 10, 60))),
)


class Limiter:
    """Turns wanted numbers of replicas into the numbers that the HPA sets; one for each HPA.

    Times are seconds, and do not decrease.
    """

    def __init__(self, behavior: Behavior, minimum: int, maximum: int) -> None:
        self._behavior = behavior
        self._minimum = minimum
        self._maximum = maximum
        self._keep_s = max(behavior.up.window_s, behavior.down.window_s)
        #: Times and numbers that were wanted, before any limit.
        self._wanted: deque[tuple[float, int]] = deque()
        #: Times and sizes of changes, for each direction.
        self._added: deque[tuple[float, int]] = deque()
        self._removed: deque[tuple[float, int]] = deque()

    def apply(self, now: float, current: int, wanted: int) -> int:
        """Return the number of replicas to set at ``now``, and account the change."""
        if not self._wanted:
            # The HPA begins with what it finds, so that it cannot scale down immediately.
            self._wanted.append((now, current))
        if current > self._maximum or current < self._minimum:
            result = min(max(current, self._minimum), self._maximum)
        else:
            result = self._within_rate(now, current, self._stabilized(now, current, wanted))
        if result > current:
            self._added.append((now, result - current))
        elif result < current:
            self._removed.append((now, current - result))
        return result

    def _stabilized(self, now: float, current: int, wanted: int) -> int:
        """Return ``current``, moved into the range of the recommendations of both windows."""
        low = high = wanted
        for time, value in self._wanted:
            if time > now - self._behavior.up.window_s:
                low = min(low, value)
            if time > now - self._behavior.down.window_s:
                high = max(high, value)
        while self._wanted and self._wanted[0][0] < now - self._keep_s:
            self._wanted.popleft()
        self._wanted.append((now, wanted))
        return min(max(current, low), high)

    def _within_rate(self, now: float, current: int, wanted: int) -> int:
        if wanted > current:
            return min(wanted, self._maximum, max(current, self._limit(now, current, self._behavior.up, 1)))
        if wanted < current:
            return max(
                wanted, self._minimum, min(current, self._limit(now, current, self._behavior.down, -1))
            )
        return wanted

    def _limit(self, now: float, current: int, rules: Rules, sign: int) -> int:
        """Return the number of replicas that the policies allow; ``sign`` is -1 for scaling down."""
        if rules.select == "Disabled":
            return current
        allowed = []
        for policy in rules.policies:
            since = now - policy.period_s
            at_start = current - _changes(self._added, since) + _changes(self._removed, since)
            if policy.kind == "Pods":
                allowed.append(at_start + sign * policy.value)
            elif sign > 0:
                allowed.append(math.ceil(at_start * (1 + policy.value / 100)))
            else:
                allowed.append(int(at_start * (1 - policy.value / 100)))
        widest = max if (rules.select == "Max") == (sign > 0) else min
        return widest(allowed)


def _changes(events: deque[tuple[float, int]], since: float) -> int:
    """Return the sum of changes after ``since``; forgets those that no policy can ask for (30 minutes)."""
    while events and events[0][0] < since - 1800:
        events.popleft()
    return sum(size for time, size in events if time > since)
