"""The observer itself: candidates in, samples in the spool. ``process`` feeds it and tells the time."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from streamer.imaging.header import AnySize
from streamer.imaging.image_header import ImageError, ImageHeader, read_header
from streamer.protocol.wire import Codec
from streamer.sampling.bare_image import bare_image
from streamer.sampling.candidate import Candidate
from streamer.sampling.candidate_image import Decode, decode_here, image_of, stored_bytes
from streamer.sampling.errors import SpoolBroken, SpoolFull
from streamer.sampling.feature_extractor import extract_features
from streamer.sampling.fingerprint import fingerprint
from streamer.sampling.layout import image_key
from streamer.sampling.metrics import SamplingMetrics
from streamer.sampling.selection import Choice, Selection
from streamer.sampling.sidecar import Picture, describe
from streamer.sampling.spool import Spool

log = logging.getLogger("streamer.observer")

#: After the disk has failed, nothing is tried on it for so long.
DISK_PAUSE_S = 60.0
#: A refusal for the same reason is logged once in this time.
LOG_EVERY_S = 600.0
#: A fingerprint needs no more pixels than these, per side.
_LOOK_PX = (160, 160)
_EXTENSIONS = {Codec.JPEG: "jpg", Codec.PNG: "png", Codec.WEBP: "webp"}


class Waker(Protocol):
    """Is told of every accepted sample."""

    def wake(self) -> None:
        """There is a new sample in the spool."""


class DriftSource(Protocol):
    """Knows which streams no longer look like their reference."""

    def wants_sample(self, candidate: Candidate) -> bool:
        """Whether the candidate is worth labelling because of it."""

    def sample_taken(self, candidate: Candidate) -> None:
        """It was kept because of it."""


class Observer:
    """Judges candidates and keeps the samples. ``spool`` is open."""

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
        #: Decodes what came encoded; in the service, a sandboxed process.
        self.decode: Decode = decode_here
        #: None where nobody watches for drift.
        self.drift: DriftSource | None = None
        self._clock = clock
        self._paused_until = 0.0
        #: When each kind of refusal may be logged again.
        self._next_log_at: dict[str, float] = {}
        self._told: Counter[str] = Counter()

    def consider(self, candidate: Candidate) -> None:
        """Judge one candidate; it may become a sample at once, at the end of its interval, or not at all."""

        def look() -> int:
            return fingerprint(image_of(candidate, _LOOK_PX, self.decode))

        drifting = self.drift is not None and self.drift.wants_sample(candidate)
        try:
            choices = self._selection.consider(candidate, self._clock(), look, drifting=drifting)
        except (ImageError, MemoryError, OSError):
            # The worker could decode it: this is rare, and the next frame is as good.
            self._metrics.drops.labels("damaged").inc()
            return
        self._keep(choices)

    def tick(self) -> None:
        """Once a second: end intervals, and publish how full the spool is."""
        self._keep(self._selection.due(self._clock()))
        unix_s = time.time()
        self._metrics.spool_bytes.set(self._spool.used_bytes)
        self._metrics.spool_items.set(len(self._spool))
        self._metrics.spool_oldest_s.set(self._spool.oldest_s(unix_s))

    def flush(self) -> None:
        """Keep what is held: the observer ends."""
        self._keep(self._selection.flush(self._clock()))

    def _features(self, candidate: Candidate) -> dict[str, float]:
        """Return the columns of drift; none of a picture that cannot be decoded."""
        try:
            return extract_features(candidate, image_of(candidate, decode=self.decode), None)[0]
        except (ImageError, MemoryError, OSError):
            return {}

    def _keep(self, choices: list[Choice]) -> None:
        for choice in choices:
            self._accept(choice)
        for reason, count in self._selection.passed_over.items():
            self._metrics.drops.labels(reason).inc(count - self._told[reason])
            self._told[reason] = count

    def _accept(self, choice: Choice) -> None:
        """Put one sample into the spool; a full or failing disk costs the sample and nothing else."""
        if self._clock() < self._paused_until:
            self._metrics.drops.labels("disk_error").inc()
            return
        candidate = choice.candidate
        try:
            data = stored_bytes(candidate)
            header = read_header(data, AnySize())
            if self._strip:
                data = bare_image(data, header.codec, header.orientation)
        except (ImageError, ValueError):
            self._metrics.drops.labels("damaged").inc()
            return
        try:
            self._spool_one(choice, data, header)
        except SpoolFull as error:
            self._refuse("spool_full", error)
        except SpoolBroken as error:
            self._paused_until = self._clock() + DISK_PAUSE_S
            self._refuse("disk_error", error)

    def _spool_one(self, choice: Choice, data: bytes, header: ImageHeader) -> None:
        candidate = choice.candidate
        digest = hashlib.sha256(data).hexdigest()
        kind = _EXTENSIONS[header.codec]
        key = image_key(candidate.origin.stream, candidate.captured_at, digest, kind)
        sidecar = describe(
            choice,
            Picture(key, digest, len(data), kind, header.orientation, self._strip, candidate.source),
            threshold=self._threshold,
            service_version=self._service_version,
            features=self._features(candidate),
        )
        # Flat, and unique as the key is.
        name = key.split("/", 2)[2].rpartition(".")[0].replace("/", "_")
        if self._spool.accept(name, data, sidecar, time.time()):
            self._metrics.samples.labels(choice.reasons[0]).inc()
            if self.drift is not None and "drift" in choice.reasons:
                self.drift.sample_taken(candidate)
            self._delivery.wake()

    def _refuse(self, reason: str, error: Exception) -> None:
        self._metrics.drops.labels(reason).inc()
        now = self._clock()
        if now >= self._next_log_at.get(reason, 0.0):
            self._next_log_at[reason] = now + LOG_EVERY_S
            log.error("samples are refused (%s): %s", reason, error)
