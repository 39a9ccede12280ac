"""The description that lies beside each picture: boxes, model, and why it was taken. Pure.

docs/sampling.md lists the fields. The picture is the truth of the pixels, this map of all else; exports are
made from it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from inference.core.detections import Boxes
from streamer.sampling.candidate import Candidate
from streamer.sampling.policy import POLICY_VERSION
from streamer.sampling.selection import Choice

#: Rises when a field changes its meaning.
SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Picture:
    """The stored picture of a sample."""

    key: str
    sha256: str
    size_bytes: int
    #: Extension of its file: jpg, png or webp.
    kind: str
    #: EXIF orientation, 1 to 8.
    orientation: int
    #: Its metadata was taken out.
    bare: bool
    #: ``original``, or ``encoded_q95`` where the frame came as part of a video.
    source: str


def describe(
    choice: Choice,
    picture: Picture,
    *,
    threshold: float,
    service_version: str,
    features: Mapping[str, float],
) -> dict[str, Any]:
    """Return the map of one sample, of plain JSON types.

    ``threshold`` is that of uncertainty, ``features`` are the columns of drift, NaN where there is none.
    """
    candidate = choice.candidate
    origin = candidate.origin
    return {
        "schema": SCHEMA,
        "sample_id": picture.sha256,
        "image": {
            "key": picture.key,
            "sha256": picture.sha256,
            "bytes": picture.size_bytes,
            "format": picture.kind,
            # Of the upright picture, as the boxes are.
            "width": candidate.width,
            "height": candidate.height,
            "exif_orientation": picture.orientation,
            "rotation": candidate.rotation,
            "metadata_removed": picture.bare,
            "source": picture.source,
        },
        "captured_at": _timestamp(candidate.captured_at),
        "stream": origin.stream,
        "transport": origin.transport,
        "seq": candidate.seq,
        "model": {
            "version": origin.version,
            "name": origin.model_name,
            "sha256": origin.model_sha256,
            "threshold": candidate.threshold,
            "low_threshold": round(candidate.low_threshold, 6),
            "iou_threshold": candidate.iou_threshold,
        },
        "classes": list(origin.labels),
        "classes_asked": list(candidate.class_ids),
        "detections": _detections(candidate, candidate.boxes),
        "rival": _rival(candidate),
        "selection": {
            "reasons": list(choice.reasons),
            "uncertainty": round(choice.uncertainty, 4),
            "components": {kind: round(value, 4) for kind, value in choice.components.items()},
            "rank": round(choice.rank, 4),
            "threshold": threshold,
            "probability": None if choice.probability is None else round(choice.probability, 9),
            "fingerprint": f"{choice.fingerprint:016x}",
            "policy": POLICY_VERSION,
            "note": candidate.note,
        },
        "features": {
            name: float(f"{value:.6g}") if math.isfinite(value) else None for name, value in features.items()
        },
        "service": {"version": service_version},
    }


def _rival(candidate: Candidate) -> dict[str, Any] | None:
    rival = candidate.rival
    if rival is None:
        return None
    return {
        "version": rival.version,
        "name": rival.model_name,
        "sha256": rival.model_sha256,
        "detections": _detections(candidate, rival.boxes),
    }


def _detections(candidate: Candidate, boxes: Boxes) -> list[dict[str, Any]]:
    labels = candidate.origin.labels
    asked = np.float32(candidate.threshold)
    return [
        {
            "box": [round(value, 2) for value in row[:4]],
            "score": round(row[4], 4),
            "class_id": int(row[5]),
            "label": labels[int(row[5])] if int(row[5]) < len(labels) else str(int(row[5])),
            "below_threshold": bool(np.float32(row[4]) < asked),
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
