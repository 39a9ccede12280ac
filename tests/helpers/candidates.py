"""Creates sample candidates and their boxes for tests of the sampling process, and stores samples."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from inference.core.detections import Boxes
from streamer.imaging.image_header import Limits, read_header
from streamer.protocol.wire import Codec
from streamer.sampling.appearance import CELLS, COLOUR_CELLS, SHIFTS, Appearance, Crop, Thumbnail
from streamer.sampling.candidate import SampleCandidate, StreamInfo
from streamer.sampling.selection import Choice
from streamer.sampling.sidecar import StoredImage, describe, image_key, sidecar_key
from tests.unit.images import encode, scene

_IMAGE = encode(scene())
STREAM = StreamInfo("gate", "websocket", "v1", "nano", "ab" * 32, ("cat", "dog", "bird"))


def boxes(*scores: float, label: int = 0, spread: float = 50.0) -> Boxes:
    """Return boxes with these scores that lie far from each other."""
    rows = [[spread * i, 10, spread * i + 20, 30, score, label] for i, score in enumerate(scores)]
    return np.array(rows, np.float32).reshape(-1, 6)


def candidate(
    *scores: float, stream: str = "gate", at: float = 1_800_000_000.0, **fields: Any
) -> SampleCandidate:
    """Return a candidate with a smooth image and boxes of these scores; ``fields`` replace the defaults."""
    values: dict[str, Any] = {
        "stream": dataclasses.replace(STREAM, name=stream),
        "captured_at": at,
        "seq": 7,
        "threshold": 0.5,
        "low_threshold": 0.25,
        "iou_threshold": 0.45,
        "class_ids": (),
        "width": 160,
        "height": 96,
        "rotation": 0,
        "data": _IMAGE,
        "boxes": boxes(*scores),
    }
    return SampleCandidate(**(values | fields))


def look(number: int, *objects: int) -> Appearance:
    """Return the appearance of a frame with these objects; those of different numbers are far apart."""
    covered = np.zeros((2, 2), np.bool_)
    thumbnail = Thumbnail(np.zeros((2, 2), np.int8), np.zeros((1, 1, 2), np.int8), covered)
    return Appearance(tuple(_crop(index) for index in objects), _crop(number), thumbnail, {}, number)


def _crop(number: int) -> Crop:
    rng = np.random.default_rng(number)
    light = rng.normal(0, 60, CELLS**2).astype(np.float32)
    colour = rng.normal(0, 20, 2 * COLOUR_CELLS**2).astype(np.float32)
    return Crop(np.tile(light, (SHIFTS**2, 1)), colour, 0.0, 0.5, 0.1, 0.5, 0.5, 2.0)


def choice(found: SampleCandidate, *reasons: str) -> Choice:
    """Return a selection of this candidate."""
    return Choice(found, reasons or ("uncertainty",), {"uncertainty": 0.9}, 0.8, look(0x0123456789ABCDEF))


def store_sample(folder: Path, data: bytes, *reasons: str, **fields: Any) -> str:
    """Store one sample as the service does, and return its key."""
    found = candidate(0.9, 0.3, data=data, **fields)
    header = read_header(data, Limits())
    digest = hashlib.sha256(data).hexdigest()
    kind = {Codec.JPEG: "jpg", Codec.PNG: "png"}[header.codec]
    key = image_key(found.stream.name, found.captured_at, digest, kind)
    image = StoredImage(key, digest, len(data), kind, header.orientation, stripped=False, source="original")
    sidecar = describe(choice(found, *reasons), image, threshold=0.7, service_version="1", features={})
    for name, body in ((key, data), (sidecar_key(key, sidecar["sample_id"]), json.dumps(sidecar).encode())):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)
    return key
