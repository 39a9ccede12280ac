"""Defines the metrics of shadow runs of v1's frames on v2."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from inference.core.metric_value import Counter, Gauge

#: What became of a frame that was drawn. ``run``: v2 has run it. ``no_capacity``: the service was busy, or
#: more frames waited than may. ``expired``: the device was not idle for long enough while the frame was kept.
#: ``not_loaded``: there is no v2. ``model_changed``: it may have run on the model that v1 had before.
#: ``large``: its decoding takes so long that it could delay others.
#: ``other_classes``: its client asked for classes that v2 does not have. ``failed``: decoder, model or
#: process failed on it.
OUTCOMES = (
    *("run", "no_capacity", "expired", "not_loaded", "model_changed", "large", "other_classes", "failed"),
)


class ShadowMetrics:
    """Counts the frames of one worker; create it once, after `inference.core.metric_setup.name_process`.

    Every frame that is drawn gets exactly one outcome. Those that a killed predecessor held count as failed.
    """

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._drawn = Counter(
            "object_detection_shadow_drawn",
            "Answered frames of v1 that were drawn to run on v2, too.",
            registry=registry,
        )
        self._outcomes = Counter(
            "object_detection_shadow_outcomes",
            "Drawn frames by what became of them.",
            ["outcome"],
            registry=registry,
        )
        self._share = Gauge(
            "object_detection_shadow_share",
            "Share of v1's frames that is drawn, 0 to 1 (SHADOW_V2, or what was set since).",
            registry=registry,
            multiprocess_mode="max",
        )
        for outcome in OUTCOMES:
            self._outcomes.labels(outcome)
        self._share.set(0)
        lost = _total(self._drawn) - _total(self._outcomes)
        if lost > 0:
            self._outcomes.labels("failed").inc(lost)

    def drawn(self) -> None:
        """Count a frame that was drawn; :meth:`ended` must follow."""
        self._drawn.inc()

    def ended(self, outcome: str) -> None:
        """Count what became of a frame, one of `OUTCOMES`."""
        self._outcomes.labels(outcome).inc()

    def set_share(self, share: float) -> None:
        """Set the share of frames that is drawn now."""
        self._share.set(share)


def _total(counter: Counter) -> float:
    """Return the sum of a counter over its labels."""
    samples = (sample for family in counter.collect() for sample in family.samples)
    return sum(sample.value for sample in samples if sample.name.endswith("_total"))
