"""Defines the metrics of streams that move between replicas."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from inference.core.metric_value import Counter, Gauge

#: Transports whose streams can move.
TRANSPORTS = ("websocket", "webrtc")


class RebalanceMetrics:
    """Counts moves of one worker; create it once, after `inference.core.metric_setup.name_process`."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._moved = Counter(
            "object_detection_streams_moved",
            "Streams that were asked to move to a replica with more room, by transport.",
            ["transport"],
            registry=registry,
        )
        #: WebSockets that this worker passes on now.
        self.relayed = Gauge(
            "object_detection_streams_relayed",
            "Open WebSockets that are passed on to another replica, which serves their streams.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        for transport in TRANSPORTS:
            self._moved.labels(transport)
        self.relayed.set(0)

    def moved(self, transport: str) -> None:
        """Count a stream that was asked to move."""
        self._moved.labels(transport).inc()
