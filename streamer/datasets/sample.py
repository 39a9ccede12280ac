"""Reads the sidecar of a sample: facts about its image, and its annotations."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any


class DatasetError(Exception):
    """Base class of the errors of `streamer samples`."""


class BadRequest(DatasetError):
    """An option is wrong, or there are no samples; the text says what was found and what is allowed."""


class CannotRead(DatasetError):
    """A folder, bucket or file cannot be read; the text says which one and why."""


class CannotWrite(DatasetError):
    """A file cannot be written; the text says which one and why."""


class DamagedSample(DatasetError):
    """An image or sidecar is missing or damaged; the text names the key or field, and what was found."""


#: Schemas of sidecars that this version reads. In 2, the probability of a random sample is exact, and its id
#: contains the time.
SCHEMAS = (1, 2)


@dataclass(frozen=True, slots=True)
class Detection:
    """One box, xyxy in pixels of the upright image."""

    box: tuple[float, float, float, float]
    score: float
    label: str
    #: Whether the score is below the threshold that the client had set.
    below_threshold: bool


@dataclass(frozen=True, slots=True)
class Sample:
    """An image and what the model found in it; ``width`` and ``height`` are pixels of the upright image."""

    key: str
    sha256: str
    size_bytes: int
    kind: str
    width: int
    height: int
    exif_orientation: int
    #: Clockwise quarter turns on top of the EXIF orientation.
    rotation: int
    #: ISO 8601, UTC.
    captured_at: str
    stream: str
    model: str
    labels: tuple[str, ...]
    detections: tuple[Detection, ...]
    reasons: tuple[str, ...]
    uncertainty: float
    #: Probability of the random draw; None for samples taken for another reason.
    probability: float | None

    @property
    def is_upright(self) -> bool:
        """Whether the stored image is upright, as the boxes are."""
        return self.exif_orientation == 1 and self.rotation == 0

    @property
    def hour(self) -> str:
        """Capture hour, such as ``2026-11-23T14``."""
        return self.captured_at[:13]


def parse_sample(data: bytes, where: str) -> Sample:
    """Return the sample that a sidecar describes.

    Raises DamagedSample; its message begins with ``where`` and says what is wrong.
    """
    try:
        fields = json.loads(data)
        schema = fields["schema"]
        if schema not in SCHEMAS:
            read = " and ".join(map(str, SCHEMAS))
            raise DamagedSample(f"{where}: field `schema` is {schema!r}; this version reads {read}")
        return _sample(fields)
    except KeyError as error:
        raise DamagedSample(f"{where}: field `{error.args[0]}` is missing") from error
    except (TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise DamagedSample(f"{where}: not the sidecar of a sample: {error}") from error


def _sample(fields: dict[str, Any]) -> Sample:
    image, selection = fields["image"], fields["selection"]
    sample = Sample(
        key=str(image["key"]),
        sha256=str(image["sha256"]),
        size_bytes=int(image["bytes"]),
        kind=str(image["format"]),
        width=int(image["width"]),
        height=int(image["height"]),
        exif_orientation=int(image["exif_orientation"]),
        rotation=int(image["rotation"]),
        captured_at=str(fields["captured_at"]),
        stream=str(fields["stream"]),
        model=f"{fields['model']['version']} {fields['model']['name']}",
        labels=tuple(str(label) for label in fields["classes"]),
        detections=tuple(_detection(detection) for detection in fields["detections"]),
        reasons=tuple(str(reason) for reason in selection["reasons"]),
        uncertainty=float(selection["uncertainty"]),
        probability=None if selection["probability"] is None else float(selection["probability"]),
    )
    if sample.width < 1 or sample.height < 1:
        raise ValueError(f"fields `image.width` and `image.height` are {sample.width}x{sample.height}")
    if not 1 <= sample.exif_orientation <= 8 or not 0 <= sample.rotation <= 3:
        raise ValueError(
            f"field `image.exif_orientation` is {sample.exif_orientation} (allowed: 1 to 8) and "
            f"`image.rotation` is {sample.rotation} (allowed: 0 to 3)"
        )
    return sample


def _detection(fields: dict[str, Any]) -> Detection:
    x1, y1, x2, y2 = (float(value) for value in fields["box"])
    if not all(map(math.isfinite, (x1, y1, x2, y2))) or x2 < x1 or y2 < y1:
        raise ValueError(
            f"field `box` is {fields['box']}; expected finite x1, y1, x2, y2 with x1 <= x2 and y1 <= y2"
        )
    return Detection(
        (x1, y1, x2, y2), float(fields["score"]), str(fields["label"]), bool(fields["below_threshold"])
    )
