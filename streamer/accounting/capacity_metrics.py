"""Defines the metrics of capacity and demand, on which replicas are scaled."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from inference.core.metric_value import Gauge

#: Classes of work: frames of live streams, and posted images.
CLASSES = ("live", "post")
_PREFIX = "object_detection"
_UNIT = "frames_per_second"


class CapacityMetrics:
    """Holds the gauges of one worker; create them once, after `inference.core.metric_setup.name_process`."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        # The capacity belongs to the replica. One worker measures it, so that workers do not contradict.
        self.capacity = Gauge(
            f"{_PREFIX}_capacity_{_UNIT}",
            "Frames per second that the replica could run if it ran only this version; no series before that "
            "is known.",
            ["version"],
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self.demand = Gauge(
            f"{_PREFIX}_demand_{_UNIT}",
            "Frames per second that clients ask for: streams as without grants, and admitted images.",
            ["version", "class"],
            registry=registry,
            multiprocess_mode="sum",
        )
        self.granted = Gauge(
            f"{_PREFIX}_granted_{_UNIT}",
            "Frames per second of the demand of live streams that their grants let through.",
            ["version"],
            registry=registry,
            multiprocess_mode="sum",
        )
        self.refused = Gauge(
            f"{_PREFIX}_refused_{_UNIT}",
            "Estimated frames per second of streams and images that were refused for lack of capacity.",
            ["version", "class"],
            registry=registry,
            multiprocess_mode="sum",
        )

    def preset(self, versions: tuple[str, ...]) -> None:
        """Create all series with the value 0, which also corrects what a killed predecessor left behind.

        The capacity keeps the value of the predecessor, because the device is the same.
        """
        for version in versions:
            self.granted.labels(version).set(0)
            for name in CLASSES:
                self.demand.labels(version, name).set(0)
                self.refused.labels(version, name).set(0)
