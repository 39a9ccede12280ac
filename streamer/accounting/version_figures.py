"""Reads from the merged metrics what a replica has measured of each model version since its start. Pure."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client.metrics_core import Metric

from streamer.accounting.metrics import STAGES

_PREFIX = "object_detection_"
_FIRST_ERROR = 400
#: Quantiles of latencies, by their names in the document.
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True, slots=True)
class Quantile:
    """A quantile of a histogram, in milliseconds."""

    #: Interpolated linearly within its bucket, as Prometheus does in queries.
    value_ms: float
    #: Bounds of the bucket, between which the true quantile lies; that of the last bucket is infinite.
    low_ms: float
    high_ms: float


@dataclass(slots=True)
class Timing:
    """A histogram of durations; buckets map upper bounds in seconds to cumulative counts."""

    buckets: dict[float, float] = field(default_factory=dict)
    sum_s: float = 0.0

    @property
    def count(self) -> int:
        """Number of durations."""
        return int(max(self.buckets.values(), default=0))

    @property
    def mean_ms(self) -> float:
        """Mean duration. Raises ZeroDivisionError if there is none."""
        return self.sum_s / self.count * 1e3

    def quantile(self, share: float) -> Quantile:
        """Return the quantile ``share``, 0..1. Raises ValueError if there are no durations."""
        if not self.count:
            raise ValueError("there are no durations")
        rank, low_s, below = share * self.count, 0.0, 0.0
        for high_s, cumulative in sorted(self.buckets.items()):
            if cumulative >= rank and cumulative > below:
                value_s = low_s
                if math.isfinite(high_s):
                    value_s += (high_s - low_s) * (rank - below) / (cumulative - below)
                return Quantile(value_s * 1e3, low_s * 1e3, high_s * 1e3)
            low_s, below = high_s, cumulative
        raise ValueError("the last bucket does not have all durations")


@dataclass(slots=True)
class VersionFigures:
    """What was measured of one version, by all processes together."""

    received: int = 0
    answered: int = 0
    failed: int = 0
    in_flight: int = 0
    #: Frames on which the model did not run, by reason.
    dropped: dict[str, int] = field(default_factory=dict)
    answered_by_transport: dict[str, int] = field(default_factory=dict)
    #: Predict requests by HTTP status.
    requests: dict[str, int] = field(default_factory=dict)
    #: Frames on which the model itself failed.
    model_failures: int = 0
    #: From the headers of a predict request to its answer, whatever its status.
    request: Timing = field(default_factory=Timing)
    #: One run of the model, of a batch.
    model_run: Timing = field(default_factory=Timing)
    #: Times of a frame by stage.
    stages: dict[str, Timing] = field(default_factory=dict)
    #: Answered frames whose boxes were counted, and how many of them had none.
    counted: int = 0
    without_boxes: int = 0
    #: Boxes by label; classes without boxes are absent.
    boxes: dict[str, int] = field(default_factory=dict)

    @property
    def refused_requests(self) -> dict[str, int]:
        """Predict requests that were answered with an error, by HTTP status."""
        return {status: count for status, count in self.requests.items() if int(status) >= _FIRST_ERROR}


def version_figures(metrics: Iterable[Metric], versions: Iterable[str]) -> dict[str, VersionFigures]:
    """Return the figures of each version; those of which the metrics know nothing are zero."""
    found = _Samples(metrics)
    return {
        version: VersionFigures(
            received=found.total("frames_received_total", version),
            answered=found.total("frames_inferred_total", version),
            failed=found.total("frames_failed_total", version),
            in_flight=found.total("frames_in_flight", version),
            dropped=found.by("reason", "frames_dropped_total", version),
            answered_by_transport=found.by("transport", "frames_inferred_total", version),
            requests=found.by("status", "requests_total", version),
            model_failures=found.total("inference_failures_total", version),
            request=found.timing("request", version),
            model_run=found.timing("inference", version),
            stages={stage: found.timing("stage", version, stage) for stage in STAGES},
            counted=found.total("boxes_per_frame_count", version),
            without_boxes=found.total("boxes_per_frame_bucket", version, le="0.0"),
            boxes=found.by("label", "boxes_total", version),
        )
        for version in versions
    }


class _Samples:
    """Finds the samples of a version by their names, which lack the prefix that they share."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._samples: defaultdict[tuple[str, str], list[tuple[Mapping[str, str], float]]] = defaultdict(list)
        for metric in metrics:
            for sample in metric.samples:
                name, version = sample.name.removeprefix(_PREFIX), sample.labels.get("version", "")
                self._samples[name, version].append((sample.labels, sample.value))

    def total(self, name: str, version: str, **wanted: str) -> int:
        """Return the sum over all labels that are not ``wanted``."""
        samples = self._samples[name, version]
        return int(sum(value for labels, value in samples if wanted.items() <= labels.items()))

    def by(self, label: str, name: str, version: str) -> dict[str, int]:
        """Return the sums by one label, without those that are 0."""
        found: Counter[str] = Counter()
        for labels, value in self._samples[name, version]:
            found[labels[label]] += int(value)
        return {value: count for value, count in sorted(found.items()) if count}

    def timing(self, name: str, version: str, stage: str | None = None) -> Timing:
        """Return a histogram of durations; ``stage`` chooses one of several."""
        name = f"{name}_duration_seconds"
        buckets: defaultdict[float, float] = defaultdict(float)
        for labels, value in self._samples[f"{name}_bucket", version]:
            if labels.get("stage") == stage:
                buckets[float(labels["le"])] += value  # each engine has series of its own
        sums = [v for labels, v in self._samples[f"{name}_sum", version] if labels.get("stage") == stage]
        return Timing(buckets, sum(sums))
