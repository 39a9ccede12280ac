"""Defines the metrics of the comparison of two versions, on which a rollout can be gated."""

from __future__ import annotations

import math

from prometheus_client import CollectorRegistry

from inference.core.metric_value import Gauge
from streamer.comparison.verdict import Judgement

_PREFIX = "object_detection_comparison"
VERDICTS = ("undecided", "no_difference", "differs")


class ComparisonMetrics:
    """Holds the gauges of one worker, which judges for the whole replica. They have no series without
    pairs."""

    def __init__(self) -> None:
        registry = CollectorRegistry()

        def gauge(name: str, text: str, labels: list[str]) -> Gauge:
            return Gauge(f"{_PREFIX}_{name}", text, labels, registry=registry, multiprocess_mode="mostrecent")

        self._verdict = gauge(
            "verdict", "1 for the present verdict on v2 against v1, 0 for the others.", ["verdict"]
        )
        self._frames = gauge("frames", "Frames that both versions ran, in finished blocks.", [])
        self._difference = gauge(
            "difference",
            "v2 minus v1, by quantity: boxes, disagreement, score, jitter, run_ms.",
            ["quantity"],
        )
        self._low = gauge(
            "difference_low", "Lower bound of it that holds at any time; -Inf: no bound yet.", ["quantity"]
        )
        self._high = gauge(
            "difference_high", "Upper bound of it that holds at any time; +Inf: no bound yet.", ["quantity"]
        )

    def show(self, judgement: Judgement) -> None:
        """Set all gauges."""
        for name in VERDICTS:
            self._verdict.labels(name).set(float(name == judgement.verdict.value))
        self._frames.set(judgement.total.sums[0])
        for each in judgement.quantities:
            low, high = each.always_valid.low, each.always_valid.high
            # After a change of a model nothing is known, and the old difference is not that of the new one.
            self._difference.labels(each.name).set(math.nan if each.difference is None else each.difference)
            self._low.labels(each.name).set(-math.inf if low is None else low)
            self._high.labels(each.name).set(math.inf if high is None else high)
