"""Defines the metrics of workers and supervisor; `merged_metrics` merges those of all processes.

Label values come from closed sets: version, status code, transport, reason, stage, class of a model.
"""

from __future__ import annotations

from collections import Counter as Counts
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from inference.core.metric_setup import count_log_lines
from inference.core.metric_value import Counter, Gauge, Histogram
from streamer.accounting.box_metrics import BoxMetrics
from streamer.protocol.wire import DropReason

if TYPE_CHECKING:  # the supervisor imports this module and must not load HTTP
    from streamer.accounting.tracing import Traces

_REQUEST_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_STAGE_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_CONNECT_BUCKETS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LAG_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)

#: Stages of a frame. ``mailbox`` (live) and ``post_queue`` are its age at the start of decoding.
STAGES = ("mailbox", "post_queue", "decode", "queue", "inference", "postprocess")
TRANSPORTS = ("http", "websocket", "webrtc", "whip")
#: What chooses the version of a request on a route without one; `http/version_split.py` explains each.
CHOSEN_BY = ("header", "client_id", "cookie", "new_client", "default")
#: Kinds of bytes in the byte budget.
BUFFERED = ("body", "answer", "messages")
#: Statuses with a series from the start: a rate ignores the first value of a new series.
_STATUSES = ("200", "429", "500", "503", "504")
#: Reasons for which work is refused with a time to retry, by class of work.
REFUSALS = {
    "post": ("queue_full", "saturated", "share", "waited", "quota"),
    "live": ("saturated", "share", "quota"),
}
#: Reasons for which WebRTC sessions end; `webrtc/end_reason.py` explains each.
WEBRTC_END_REASONS = (
    "closed",
    "peer_gone",
    "connect_timeout",
    "ice_failed",
    "dtls_failed",
    "no_media",
    "limits",
    "shutdown",
    "moved",
    "server_fault",
)
#: Reasons for which decoder processes end.
DECODER_ENDINGS = ("crash", "timeout", "stuck", "killed", "retired")
#: Protections of decoders that a kernel or a container may not provide (`decoding/sandbox.py`).
PROTECTIONS = ("landlock", "seccomp", "oom_score_adj")


class WorkerMetrics:
    """Holds the metrics of one worker; create them once, after `inference.core.metric_setup.name_process`."""

    #: Takes traces of requests and frames; None while none are exported.
    traces: Traces | None = None

    def __init__(self) -> None:
        registry = CollectorRegistry()
        count_log_lines(registry)
        self.boxes = BoxMetrics(registry)
        self.requests = Counter(
            "object_detection_requests",
            "Predict requests by model version and HTTP status.",
            ["version", "status"],
            registry=registry,
        )
        self.split_requests = Counter(
            "object_detection_split_requests",
            "Requests on routes without a version, by the version that they got and what chose it.",
            ["version", "chosen_by"],
            registry=registry,
        )
        self.request_s = Histogram(
            "object_detection_request_duration_seconds",
            "Predict requests from their headers to their answer.",
            ["version"],
            buckets=_REQUEST_BUCKETS_S,
            registry=registry,
        )
        self.stage_s = Histogram(
            "object_detection_stage_duration_seconds",
            "Time of a frame in each stage; `mailbox` and `post_queue` are the age of a live frame and of a "
            "posted image when it is taken for decoding.",
            ["stage", "version"],
            buckets=_STAGE_BUCKETS_S,
            registry=registry,
        )
        self.received = Counter(
            "object_detection_frames_received",
            "Frames that arrived.",
            ["transport", "version"],
            registry=registry,
        )
        self.inferred = Counter(
            "object_detection_frames_inferred",
            "Frames that were answered with a result.",
            ["transport", "version"],
            registry=registry,
        )
        self.dropped = Counter(
            "object_detection_frames_dropped",
            "Frames that were not inferred, by reason.",
            ["transport", "version", "reason"],
            registry=registry,
        )
        self.failed = Counter(
            "object_detection_frames_failed",
            "Frames that were answered with an error.",
            ["transport", "version"],
            registry=registry,
        )
        self.refused = Counter(
            "object_detection_refused",
            "Requests and streams that were told to come back later, by class of work and reason.",
            ["class", "reason"],
            registry=registry,
        )
        self.in_flight = Gauge(
            "object_detection_frames_in_flight",
            "Frames received that have no outcome yet.",
            ["transport", "version"],
            registry=registry,
            multiprocess_mode="sum",
        )
        self.streams = Gauge(
            "object_detection_streams",
            "Open live streams.",
            ["transport", "version"],
            registry=registry,
            multiprocess_mode="sum",
        )
        self.undelivered = Counter(
            "object_detection_results_undelivered",
            "Results replaced by a newer one because the client read too slowly.",
            ["transport"],
            registry=registry,
        )
        self.webrtc_sessions = Gauge(
            "object_detection_webrtc_sessions",
            "WebRTC and WHIP sessions, by whether their connection stands yet.",
            ["state"],
            registry=registry,
            multiprocess_mode="sum",
        )
        self.webrtc_ended = Counter(
            "object_detection_webrtc_ended",
            "WebRTC and WHIP sessions that have ended, by reason.",
            ["reason"],
            registry=registry,
        )
        self.webrtc_connect_s = Histogram(
            "object_detection_webrtc_connect_seconds",
            "From a WebRTC offer until the connection stands.",
            buckets=_CONNECT_BUCKETS_S,
            registry=registry,
        )
        self.buffered_bytes = Gauge(
            "object_detection_buffered_bytes",
            "Bytes held for clients, counted once a second: bodies, answers and messages that wait.",
            ["kind"],
            registry=registry,
            multiprocess_mode="sum",
        )
        self.buffer_refusals = Counter(
            "object_detection_buffer_refusals",
            "Bodies, answers and queues of messages that found no room in the byte budget.",
            ["kind"],
            registry=registry,
        )
        self.forwarded = Counter(
            "object_detection_requests_forwarded",
            "Requests about a session that reached another process than its owner, by where that is.",
            ["to"],
            registry=registry,
        )
        self.decoders_ended = Counter(
            "object_detection_decoders_ended",
            "Decoder processes that have ended, by reason; each was replaced.",
            ["reason"],
            registry=registry,
        )
        self.unprotected = Gauge(
            "object_detection_decoders_unprotected",
            "1 for each protection of the sandbox that decoders have to do without on this machine.",
            ["protection"],
            registry=registry,
            multiprocess_mode="max",
        )
        self.sampler_dropped = Counter(
            "sampler_dropped",
            "Candidates for samples that did not reach the sampling process, by reason.",
            ["reason"],
            registry=registry,
        )
        self.connections_refused = Counter(
            "object_detection_connections_refused",
            "Connections closed at once because too many were open.",
            registry=registry,
        )
        self.keys_refused = Counter(
            "object_detection_keys_refused",
            "Keys, tokens and tickets that were refused, by reason.",
            ["reason"],
            registry=registry,
        )
        self.loop_lag_s = Histogram(
            "object_detection_event_loop_lag_seconds",
            "How late the worker's event loop woke up, sampled once a second.",
            buckets=_LAG_BUCKETS_S,
            registry=registry,
        )
        self.tasks = Gauge(
            "object_detection_event_loop_tasks",
            "Tasks of the workers' event loops, counted once a second.",
            registry=registry,
            multiprocess_mode="sum",
        )
        self.ready = Gauge(
            "object_detection_inference_ready",
            "1 while the inference process is ready, as this replica's workers see it.",
            registry=registry,
            multiprocess_mode="min",
        )

    def buffer_refused(self, kind: str) -> None:
        """Count a body, an answer or a queue of messages that the byte budget has refused."""
        self.buffer_refusals.labels(kind).inc()

    def key_refused(self, reason: str) -> None:
        """Count a refused key: `wrong`, or `limited` if it was not checked after too many wrong ones."""
        self.keys_refused.labels(reason).inc()

    def version_chosen(self, version: str, by: str) -> None:
        """Count a request on a route without a version."""
        self.split_requests.labels(version, by).inc()

    def request_forwarded(self, to: str) -> None:
        """Count a request that was forwarded to another `worker` or `replica`."""
        self.forwarded.labels(to).inc()

    def decoder_ended(self, reason: str) -> None:
        """Count the end of a decoder process."""
        self.decoders_ended.labels(reason).inc()

    def protection_missing(self, name: str) -> None:
        """Record that decoders lack a protection."""
        self.unprotected.labels(name).set(1)

    def sample_dropped(self, reason: str) -> None:
        """Count a candidate that did not reach the sampling process."""
        self.sampler_dropped.labels(reason).inc()

    def preset(self, versions: tuple[str, ...]) -> None:
        """Create every series, and correct the values that a killed predecessor left behind.

        Gauges become 0. Frames that were in flight in the killed worker count as failed: they got no answer.
        """
        for version in versions:
            self.preset_version(version)
        self._preset_reasons()
        for transport in TRANSPORTS:
            if transport != "http":
                self.undelivered.labels(transport)
        for kind in BUFFERED:
            self.buffered_bytes.labels(kind).set(0)
            self.buffer_refusals.labels(kind)
        for target in ("worker", "replica"):
            self.forwarded.labels(target)
        for why in ("wrong", "limited"):
            self.keys_refused.labels(why)
        for reason in DECODER_ENDINGS:
            self.decoders_ended.labels(reason)
        for lost in ("busy", "no_observer"):
            self.sampler_dropped.labels(lost)
        self.tasks.set(0)
        self.ready.set(0)
        for (transport, version), count in self._without_outcome().items():
            self.failed.labels(transport, version).inc(count)

    def _preset_reasons(self) -> None:
        for name, reasons in REFUSALS.items():
            for reason in reasons:
                self.refused.labels(name, reason)
        for ending in WEBRTC_END_REASONS:
            self.webrtc_ended.labels(ending)
        for state in ("connecting", "connected"):
            self.webrtc_sessions.labels(state).set(0)
        for protection in PROTECTIONS:
            self.unprotected.labels(protection).set(0)

    def preset_version(self, version: str) -> None:
        """Create the series of a version."""
        for transport in TRANSPORTS:
            for counter in (self.received, self.inferred, self.failed):
                counter.labels(transport, version)
            for reason in DropReason:
                self.dropped.labels(transport, version, reason)
            self.in_flight.labels(transport, version).set(0)
            self.streams.labels(transport, version).set(0)
        for status in _STATUSES:
            self.requests.labels(version, status)
        self.request_s.labels(version)
        self.boxes.preset(version)
        for stage in STAGES:
            self.stage_s.labels(stage, version)
        for by in CHOSEN_BY:
            self.split_requests.labels(version, by)

    def _without_outcome(self) -> dict[tuple[str, str], float]:
        """Return the number of frames without an outcome by transport and version, unless it is 0."""
        left: Counts[tuple[str, str]] = Counts()
        for metric, sign in ((self.received, 1), (self.inferred, -1), (self.dropped, -1), (self.failed, -1)):
            for family in metric.collect():
                for sample in family.samples:
                    if sample.name.endswith("_total"):
                        key = sample.labels["transport"], sample.labels["version"]
                        left[key] += sign * int(sample.value)
        return {key: count for key, count in left.items() if count > 0}


class SupervisorMetrics:
    """Holds the metrics of the supervisor."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        count_log_lines(registry)
        self.restarts = Counter(
            "object_detection_process_restarts",
            "Processes started again after they ended, by role.",
            ["role"],
            registry=registry,
        )
        for role in ("inference", "worker", "observer"):
            self.restarts.labels(role)
        self.engine_ready = Gauge(
            "object_detection_engine_ready",
            "1 while this engine of the current generation can run frames, by its number and device.",
            ["engine", "device"],
            registry=registry,
            multiprocess_mode="mostrecent",
        )
