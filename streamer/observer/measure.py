"""Measures a candidate: its upright pixels, and from them and its boxes a row for drift."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from streamer.drift.columns import NUMERIC, Row, model_key
from streamer.drift.image_features import Image, grey, image_features, thumbnail
from streamer.drift.prediction_features import count_classes, prediction_features, top_class
from streamer.image_header import read_header
from streamer.media import decode
from streamer.observer.candidate import Candidate
from streamer.protocol import Codec


@dataclass(frozen=True, slots=True)
class AnySize:
    """The workers have judged sizes before."""

    image_px: int = 1 << 40
    image_side_px: int = 65_535


def decode_upright(candidate: Candidate, target: tuple[int, int] | None = None) -> Image:
    """Return the picture upright, smaller where ``target`` pixels are enough. Raises ImageError."""
    header = read_header(candidate.data, AnySize())
    return decode(
        candidate.data, header, rotation=candidate.rotation, target=target, reduce=target is not None
    )


def measure(candidate: Candidate, image: Image, before: Image | None) -> tuple[dict[str, float], Image]:
    """Return the numbers of a candidate by column, and the luma of its thumbnail for the next one.

    ``before`` is that of the stream's last row, None without.
    """
    header = read_header(candidate.data, AnySize())
    small = thumbnail(image)
    pixels = header.width * header.height
    bpp = 8 * len(candidate.data) / pixels if header.codec is Codec.JPEG else math.nan
    numbers = image_features(image, small, before, bpp) | prediction_features(
        candidate.boxes, candidate.threshold, candidate.width, candidate.height
    )
    return numbers, grey(small)


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
