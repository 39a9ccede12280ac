"""Decides on candidates and writes samples to the spool.

`process` passes the candidates and reports in and calls ``tick``.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from streamer.imaging.image_header import ImageError, ImageHeader, read_header
from streamer.imaging.pixel_limits import NoPixelLimits
from streamer.protocol.wire import Codec
from streamer.sampling.appearance import Appearance, decoded_size, subjects
from streamer.sampling.appearance import describe as describe_appearance
from streamer.sampling.candidate import SampleCandidate
from streamer.sampling.candidate_image import (
    Decode,
    decode_here,
    image_bytes,
    image_of,
    stored_as_jpeg,
    strip_metadata,
)
from streamer.sampling.errors import SpoolBroken, SpoolFull
from streamer.sampling.feature_extractor import extract_features
from streamer.sampling.metrics import SamplingMetrics
from streamer.sampling.reports import ReportOutcome, refused
from streamer.sampling.selection import Choice, Selection
from streamer.sampling.sidecar import StoredImage, describe, image_key, sample_id
from streamer.sampling.spool import Spool

log = logging.getLogger("streamer.observer")

#: After a disk error, nothing is written for this time.
DISK_PAUSE_S = 60.0
#: Dropped samples are logged at most once in this time for each reason.
LOG_EVERY_S = 600.0
#: Number of reports that are remembered, so that a frame that is reported twice is recognised.
REMEMBERED_REPORTS = 4096
#: Extension of each format in which images are stored; others become JPEGs.
_EXTENSIONS = {Codec.JPEG: "jpg", Codec.PNG: "png", Codec.WEBP: "webp"}


class Waker(Protocol):
    """Is notified of every accepted sample."""

    def wake(self) -> None:
        """Handle a new sample in the spool."""


class DriftSource(Protocol):
    """Knows which streams are in drift."""

    def wants_sample(self, candidate: SampleCandidate) -> bool:
        """Whether the candidate is worth labelling because its stream is in drift."""

    def sample_taken(self, candidate: SampleCandidate) -> None:
        """Count a candidate that was kept because its stream is in drift."""


class Collector:
    """Decides which candidates become samples, and writes these to ``spool``, which must be open."""

    def __init__(
        self,
        selection: Selection,
        spool: Spool,
        delivery: Waker,
        metrics: SamplingMetrics,
        *,
        strip_metadata: bool,
        threshold: float,
        service_version: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._selection = selection
        self._spool = spool
        self._delivery = delivery
        self._metrics = metrics
        self._strip = strip_metadata
        self._threshold = threshold
        self._service_version = service_version
        #: Decodes encoded images. The service replaces this function with one that uses a sandboxed process.
        self.decode: Decode = decode_here
        #: None when drift is not monitored.
        self.drift: DriftSource | None = None
        self._clock = clock
        self._paused_until = 0.0
        #: When each reason for dropping may be logged again.
        self._next_log_at: dict[str, float] = {}
        #: Ids of the samples of the last frames that people reported, by stream, session, seq and time.
        self._reported: OrderedDict[tuple[str, int, int, float], str] = OrderedDict()
        #: The part of ``Selection.dropped`` that the metrics contain already.
        self._counted: Counter[str] = Counter()

    def consider(self, candidate: SampleCandidate) -> None:
        """Decide whether a candidate becomes a sample at once, at the end of its interval, or not at all."""

        drifting = self.drift is not None and self.drift.wants_sample(candidate)
        try:
            choices = self._selection.consider(
                candidate, self._clock(), lambda: self._appearance(candidate), drifting=drifting
            )
        except (ImageError, MemoryError, OSError):
            # This is rare, because the worker has decoded the image before. The next frame can replace it.
            self._metrics.drops.labels("damaged").inc()
            return
        self._keep(choices)

    def report(self, candidate: SampleCandidate, *, repeated: bool) -> ReportOutcome:
        """Keep a frame that a person reports, and return what became of it once this is sure.

        ``repeated`` says that an earlier process may have kept it already without answering.
        """
        budget, now = self._selection.report_budget, self._clock()
        stream, at = candidate.stream.name, candidate.captured_at
        frame = stream, candidate.stream.session, candidate.seq, at
        if budget.off:
            return refused("off")
        if frame in self._reported:
            return refused("duplicate", sample=self._reported[frame])
        before = self._selection.dropped["report_budget"]
        try:
            choices = self._selection.consider(candidate, now, lambda: self._appearance(candidate))
        except (ImageError, MemoryError, OSError):
            self._metrics.drops.labels("damaged").inc()
            return refused("damaged")
        outcome = refused("rate", retry_s=budget.wait_s(stream, candidate.size_bytes, now, at))
        if self._selection.dropped["report_budget"] == before:
            # The report is the last choice. Others come from a stream that was forgotten for this one.
            choice = choices.pop()
            outcome = self._accept(choice)
            if repeated and outcome.reason == "duplicate":
                outcome = ReportOutcome(taken=True, sample=outcome.sample)
            if outcome.taken:
                self._reported[frame] = outcome.sample
                if len(self._reported) > REMEMBERED_REPORTS:
                    self._reported.popitem(last=False)
            else:
                budget.charge(stream, choice.candidate.size_bytes, now, reports=-1)
        self._keep(choices)
        return outcome

    def tick(self) -> None:
        """End intervals, and update the metrics of the spool. The process calls this once a second."""
        self._keep(self._selection.due(self._clock()))
        unix_s = time.time()
        self._metrics.spool_bytes.set(self._spool.used_bytes)
        self._metrics.spool_items.set(len(self._spool))
        self._metrics.spool_oldest_s.set(self._spool.oldest_s(unix_s))

    def flush(self) -> None:
        """Keep all held candidates before the process ends."""
        self._keep(self._selection.flush(self._clock()))

    def _appearance(self, candidate: SampleCandidate) -> Appearance:
        found = subjects(candidate.boxes, candidate.before, candidate.threshold)
        size = decoded_size(found, candidate.width, candidate.height)
        image = image_of(candidate, size, self.decode)
        return describe_appearance(image, found, candidate.width, occupied=candidate.boxes)

    def _features(self, candidate: SampleCandidate) -> dict[str, float]:
        """Return the numeric columns of drift; an empty dictionary if the image cannot be decoded."""
        try:
            return extract_features(candidate, image_of(candidate, decode=self.decode), None)[0]
        except (ImageError, MemoryError, OSError):
            return {}

    def _keep(self, choices: list[Choice]) -> None:
        for choice in choices:
            self._accept(choice)
        for reason, count in self._selection.dropped.items():
            self._metrics.drops.labels(reason).inc(count - self._counted[reason])
            self._counted[reason] = count

    def _accept(self, choice: Choice) -> ReportOutcome:
        """Write one sample to the spool, or drop it if the image is damaged or the spool is full or broken.

        After an error of the disk, all samples are dropped for ``DISK_PAUSE_S``.
        """
        if (pause_s := self._paused_until - self._clock()) > 0:
            self._metrics.drops.labels("disk_error").inc()
            return refused("disk_error", retry_s=pause_s)
        try:
            data = image_bytes(choice.candidate)
            header = read_header(data, NoPixelLimits())
            if header.codec not in _EXTENSIONS:
                choice = replace(choice, candidate=stored_as_jpeg(choice.candidate, self.decode))
                data = image_bytes(choice.candidate)
                header = read_header(data, NoPixelLimits())
            if self._strip:
                data = strip_metadata(data, header.codec, header.orientation)
        except (ImageError, ValueError, MemoryError, OSError):
            self._metrics.drops.labels("damaged").inc()
            return refused("damaged")
        try:
            return self._write(choice, data, header)
        except SpoolFull as error:
            self._drop("spool_full", error)
            return refused("spool_full")
        except SpoolBroken as error:
            self._paused_until = self._clock() + DISK_PAUSE_S
            self._drop("disk_error", error)
            return refused("disk_error", retry_s=DISK_PAUSE_S)

    def _write(self, choice: Choice, data: bytes, header: ImageHeader) -> ReportOutcome:
        candidate = choice.candidate
        digest = hashlib.sha256(data).hexdigest()
        extension = _EXTENSIONS[header.codec]
        key = image_key(candidate.stream.name, candidate.captured_at, digest, extension)
        sidecar = describe(
            choice,
            StoredImage(key, digest, len(data), extension, header.orientation, self._strip, candidate.source),
            threshold=self._threshold,
            service_version=self._service_version,
            features=self._features(candidate),
        )
        # The name has no slashes, and is as unique as the key of the sidecar.
        sample = sample_id(choice, digest)
        name = f"{key.split('/', 2)[2].rpartition('/')[0].replace('/', '_')}_{sample}"
        if not self._spool.accept(name, data, sidecar, time.time()):
            return refused("duplicate", sample=sample)
        self._metrics.samples.labels(choice.reasons[0]).inc()
        if self.drift is not None and "drift" in choice.reasons:
            self.drift.sample_taken(candidate)
        self._delivery.wake()
        return ReportOutcome(taken=True, sample=sample)

    def _drop(self, reason: str, error: Exception) -> None:
        self._metrics.drops.labels(reason).inc()
        now = self._clock()
        if now >= self._next_log_at.get(reason, 0.0):
            self._next_log_at[reason] = now + LOG_EVERY_S
            log.error("samples are refused (%s): %s", reason, error)
