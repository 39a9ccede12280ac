"""Turns candidates into rows of drift features: at most one row per stream in each jittered interval.

Intervals are measured by the time of capture in unix seconds, because rows are compared with the time of day
and outlive processes. When the clock is set back, the next frame becomes a row.
"""

from __future__ import annotations

import math
import random
from collections import OrderedDict

import numpy as np

from streamer.drift.features import (
    Image,
    count_classes,
    grey,
    image_features,
    prediction_features,
    thumbnail,
    top_class,
)
from streamer.drift.recent_rows import MAX_SHARE
from streamer.drift.rows import NUMERIC, Row, model_key
from streamer.imaging.image_header import read_header
from streamer.imaging.pixel_limits import NoPixelLimits
from streamer.protocol.wire import Codec
from streamer.sampling.candidate import ORIGINAL, SampleCandidate
from streamer.sampling.candidate_image import Decode, decode_here, image_bytes, image_of

JITTER = 0.2
#: Number of streams whose last row is remembered; the stream with the oldest row is forgotten first.
MAX_STREAMS = 1000
#: Largest number of thumbnails kept, one per stream, and the age in intervals above which a thumbnail is not
#: used to compute motion.
MAX_THUMBS, THUMB_INTERVALS = 256, 4


class RowThrottle:
    """Limits how often frames become rows. Pure; the caller passes the time in."""

    def __init__(self, interval_s: float, rng: random.Random) -> None:
        self._interval_s = interval_s
        self._rng = rng
        #: By stream, and by group (session -1): time of the last row, and the earliest time of the next.
        self._turns: OrderedDict[tuple[str, int], tuple[float, float]] = OrderedDict()

    def take(self, group: str, session: int, at: float) -> bool:
        """Return whether the frame captured ``at`` becomes a row; if so, start the stream's next interval."""
        own, whole_group = (group, session), (group, -1)
        if not self._due(own, at) or not self._due(whole_group, at):
            return False
        jittered = self._interval_s * self._rng.uniform(1 - JITTER, 1 + JITTER)
        self._turns[own] = (at, at + jittered)
        self._turns[whole_group] = (at, at + jittered / MAX_SHARE)
        for key in (own, whole_group):
            self._turns.move_to_end(key)
        while len(self._turns) > 2 * MAX_STREAMS:
            self._turns.popitem(last=False)
        return True

    def _due(self, key: tuple[str, int], at: float) -> bool:
        last, following = self._turns.get(key, (-math.inf, -math.inf))
        return at >= following or at < last


class FeatureExtractor:
    """Decides which candidates become rows, and computes their features."""

    def __init__(self, interval_s: float, decode: Decode = decode_here) -> None:
        self._interval_s = interval_s
        self._decode = decode
        self._throttle = RowThrottle(interval_s, random.Random())  # noqa: S311 - jitter, not a secret
        #: By stream: time of its last row, and the luma of its thumbnail.
        self._thumbs: OrderedDict[tuple[str, int], tuple[float, Image]] = OrderedDict()

    def extract(self, candidate: SampleCandidate) -> Row | None:
        """Return the candidate's row; None when its stream is not due for one.

        Raises ImageError, MemoryError or OSError when the image cannot be decoded.
        """
        stream, at = candidate.stream, candidate.captured_at
        # A reported frame never becomes a row: a person chose it, and it lacks boxes below the threshold.
        if candidate.reported or not self._throttle.take(stream.name, stream.session, at):
            return None
        key = stream.name, stream.session
        numbers, thumb = extract_features(
            candidate, image_of(candidate, decode=self._decode), self._previous(key, at)
        )
        if stream.transport != "http":  # posted images are unrelated to each other
            self._thumbs[key] = at, thumb
            self._thumbs.move_to_end(key)
            if len(self._thumbs) > MAX_THUMBS:
                self._thumbs.popitem(last=False)
        return _row_of(candidate, numbers)

    def _previous(self, key: tuple[str, int], now: float) -> Image | None:
        at, thumb = self._thumbs.get(key, (-math.inf, None))
        return thumb if 0 <= now - at <= THUMB_INTERVALS * self._interval_s else None


def extract_features(
    candidate: SampleCandidate, image: Image, before: Image | None
) -> tuple[dict[str, float], Image]:
    """Return the numeric features by column, and the luma of the thumbnail.

    ``image`` is the candidate's upright image, ``before`` the thumbnail of the stream's last row or None.
    """
    small = thumbnail(image)
    numbers = image_features(image, small, before, _jpeg_bpp(candidate)) | prediction_features(
        candidate.boxes, candidate.threshold, candidate.width, candidate.height
    )
    return numbers, grey(small)


def _jpeg_bpp(candidate: SampleCandidate) -> float:
    """Return the bits per pixel of an image that arrived as a JPEG, NaN for all others."""
    if candidate.source != ORIGINAL:
        return math.nan
    header = read_header(image_bytes(candidate), NoPixelLimits())
    if header.codec is not Codec.JPEG:
        return math.nan
    return 8 * candidate.size_bytes / (header.width * header.height)


def _row_of(candidate: SampleCandidate, numbers: dict[str, float]) -> Row:
    stream = candidate.stream
    return Row(
        at=candidate.captured_at,
        stream=stream.name,
        session=stream.session,
        model=model_key(stream.version, stream.model_sha256),
        numbers=np.array([numbers[name] for name in NUMERIC], np.float32),
        top_class=top_class(candidate.boxes, candidate.threshold, stream.labels),
        resolution=f"{candidate.width}x{candidate.height}",
        source=stream.transport,
        classes=count_classes(candidate.boxes, candidate.threshold, stream.labels),
    )
