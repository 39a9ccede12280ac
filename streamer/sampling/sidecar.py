"""Builds the sidecar of a sample, which describes its image, and the object keys of both. Pure.

docs/sampling.md lists the fields. The image holds the pixels, the sidecar everything else;
`streamer.datasets` reads both. A key depends only on the day of capture, the stream and the content: storing
a sample again writes the same bytes to the same place.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from inference.core.detections import Boxes
from streamer.sampling.candidate import SampleCandidate
from streamer.sampling.policy import POLICY_VERSION
from streamer.sampling.selection import Choice

#: First part of every key. Increase it when the layout changes.
LAYOUT = "v1"
#: Increase this number when a field changes its meaning.
SCHEMA = 2


@dataclass(frozen=True, slots=True)
class StoredImage:
    """Describes the stored image of a sample."""

    key: str
    sha256: str
    size_bytes: int
    #: Extension of its file: jpg, png or webp.
    extension: str
    #: EXIF orientation, 1 to 8.
    orientation: int
    #: Whether its metadata was removed.
    stripped: bool
    #: ``original``, or ``encoded_q95`` for a frame of a video, a HEIC or an AVIF.
    source: str


def image_key(stream: str, captured_at: float, sha256: str, extension: str) -> str:
    """Return the key of an image; ``captured_at`` is unix seconds, the day is in UTC."""
    day = time.strftime("%Y-%m-%d", time.gmtime(captured_at))
    return f"{LAYOUT}/images/dt={day}/stream={stream}/{sha256}.{extension}"


def sample_id(choice: Choice, sha256: str) -> str:
    """Return the id of a sample, which names its sidecar: the digest of its image.

    Random samples and reports add the time of capture in milliseconds, because two of them may have the same
    image: a camera that stands still must not make them fewer.
    """
    if not choice.is_unconditional:
        return sha256
    return f"{sha256}-{round(choice.candidate.captured_at * 1000)}"


def sidecar_key(key: str, sample: str = "") -> str:
    """Return the key of the sidecar of a sample, given the key of its image.

    ``sample`` is the id of the sample; if empty, the digest of its image. The sidecar is written last and so
    marks a complete sample.
    """
    folder, _, name = key.replace("/images/", "/samples/", 1).rpartition("/")
    return f"{folder}/{sample or name.rpartition('.')[0]}.json"


def describe(
    choice: Choice,
    image: StoredImage,
    *,
    threshold: float,
    service_version: str,
    features: Mapping[str, float],
) -> dict[str, Any]:
    """Return the sidecar of a sample, in JSON types.

    ``threshold`` is the least uncertainty of a sample; ``features`` are the numeric columns of drift, NaN for
    missing values.
    """
    candidate = choice.candidate
    stream = candidate.stream
    return {
        "schema": SCHEMA,
        "sample_id": sample_id(choice, image.sha256),
        "image": {
            "key": image.key,
            "sha256": image.sha256,
            "bytes": image.size_bytes,
            "format": image.extension,
            # Size of the upright image, to which the boxes refer, too.
            "width": candidate.width,
            "height": candidate.height,
            "exif_orientation": image.orientation,
            "rotation": candidate.rotation,
            "metadata_removed": image.stripped,
            "source": image.source,
        },
        "captured_at": _timestamp(candidate.captured_at),
        "stream": stream.name,
        "transport": stream.transport,
        "seq": candidate.seq,
        "model": {
            "version": stream.version,
            "name": stream.model_name,
            "sha256": stream.model_sha256,
            "threshold": candidate.threshold,
            "low_threshold": round(candidate.low_threshold, 6),
            "iou_threshold": candidate.iou_threshold,
            "agnostic_nms": candidate.agnostic_nms,
        },
        "classes": list(stream.labels),
        "classes_asked": list(candidate.class_ids),
        "detections": _detections(candidate, candidate.boxes),
        "rival": _describe_shadow(candidate),
        "selection": {
            "reasons": list(choice.reasons),
            "uncertainty": round(choice.uncertainty, 4),
            "components": {kind: round(value, 4) for kind, value in choice.components.items()},
            "rank": round(choice.rank, 4),
            "threshold": threshold,
            "probability": None if choice.probability is None else round(choice.probability, 9),
            "novelty": round(choice.novelty, 2) if math.isfinite(choice.novelty) else None,
            "fingerprint": f"{choice.appearance.fingerprint:016x}",
            "policy": POLICY_VERSION,
            "note": candidate.note,
        },
        "features": {
            name: float(f"{value:.6g}") if math.isfinite(value) else None for name, value in features.items()
        },
        "service": {"version": service_version},
    }


def _describe_shadow(candidate: SampleCandidate) -> dict[str, Any] | None:
    shadow = candidate.shadow
    if shadow is None:
        return None
    return {
        "version": shadow.version,
        "name": shadow.model_name,
        "sha256": shadow.model_sha256,
        "detections": _detections(candidate, shadow.boxes),
    }


def _detections(candidate: SampleCandidate, boxes: Boxes) -> list[dict[str, Any]]:
    labels = candidate.stream.labels
    threshold = np.float32(candidate.threshold)
    return [
        {
            "box": [round(value, 2) for value in row[:4]],
            "score": round(row[4], 4),
            "class_id": int(row[5]),
            "label": labels[int(row[5])] if int(row[5]) < len(labels) else str(int(row[5])),
            "below_threshold": bool(np.float32(row[4]) < threshold),
        }
        for row in _rows(boxes)
    ]


def _rows(boxes: Boxes) -> list[list[float]]:
    rows: list[list[float]] = boxes.astype(np.float64).tolist()
    return rows


def _timestamp(unix_s: float) -> str:
    """Return ISO 8601 in UTC with milliseconds."""
    whole, milliseconds = divmod(round(unix_s * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{milliseconds:03d}Z"
