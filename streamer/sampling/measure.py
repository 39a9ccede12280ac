"""Measures a candidate: its upright pixels, and from them and its boxes a row for drift."""

from __future__ import annotations

import math

import numpy as np

from streamer.drift.columns import NUMERIC, Row, model_key
from streamer.drift.image_features import Image, grey, image_features, thumbnail
from streamer.drift.prediction_features import count_classes, prediction_features, top_class
from streamer.imaging.header import AnySize
from streamer.imaging.image_header import read_header
from streamer.protocol.wire import Codec
from streamer.sampling.candidate import ORIGINAL, Candidate
from streamer.sampling.candidate_image import stored_bytes


def measure(candidate: Candidate, image: Image, before: Image | None) -> tuple[dict[str, float], Image]:
    """Return the numbers of a candidate by column, and the luma of its thumbnail for the next one.

    ``before`` is that of the stream's last row, None without.
    """
    small = thumbnail(image)
    numbers = image_features(image, small, before, _jpeg_bpp(candidate)) | prediction_features(
        candidate.boxes, candidate.threshold, candidate.width, candidate.height
    )
    return numbers, grey(small)


def _jpeg_bpp(candidate: Candidate) -> float:
    """Return the bits a pixel of a JPEG that came as one, NaN of everything else."""
    if candidate.source != ORIGINAL:
        return math.nan
    header = read_header(stored_bytes(candidate), AnySize())
    if header.codec is not Codec.JPEG:
        return math.nan
    return 8 * candidate.size_bytes / (header.width * header.height)


def row_of(candidate: Candidate, numbers: dict[str, float]) -> Row:
    """Return the row of a candidate that was measured."""
    origin = candidate.origin
    return Row(
        at=candidate.captured_at,
        stream=origin.stream,
        session=origin.session,
        model=model_key(origin.version, origin.model_sha256),
        numbers=np.array([numbers[name] for name in NUMERIC], np.float32),
        top_class=top_class(candidate.boxes, candidate.threshold, origin.labels),
        resolution=f"{candidate.width}x{candidate.height}",
        source=origin.transport,
        classes=count_classes(candidate.boxes, candidate.threshold, origin.labels),
    )
