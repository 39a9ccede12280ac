"""Defines sample candidates and their packed form.

A candidate is a finished detection with its image, which a worker sends to the sampling process.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np

from inference.core.detections import Boxes
from streamer.imaging.frame import DecodedFrame

#: Largest packed candidate: enough for the largest image that can reasonably be configured, and its boxes.
MAX_BYTES = 64 << 20
#: Answer of the sampling process after it has decided on a candidate.
CONFIRMED = b"\x01"

#: Value of ``SampleCandidate.source`` for an encoded image that is unchanged since its arrival.
ORIGINAL = "original"
#: Value for the pixels of a video frame (BGR rows), which are never stored in this form.
PIXELS = "pixels"
#: Quality of the JPEG in which such pixels are stored, and the value for them in this form.
JPEG_QUALITY = 95
ENCODED = f"encoded_q{JPEG_QUALITY}"

#: Name of all streams without a name of their own; they share one budget.
UNNAMED = "unnamed"
#: Name of the stream of all posted images.
POSTED = "posted"
MAX_NAME_CHARS = 64
_NOT_IN_NAMES = re.compile(r"[^a-z0-9]+")


class MalformedCandidate(Exception):
    """The bytes are not a candidate; only a worker of another version of the service could send them."""


def slug(name: str) -> str:
    """Return ``name`` in the form for object keys: ``[a-z0-9-]``, 1 to 64 characters."""
    return _NOT_IN_NAMES.sub("-", name.lower()).strip("-")[:MAX_NAME_CHARS].rstrip("-") or UNNAMED


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """Describes the stream of a candidate and its model; equal for all candidates of the stream."""

    #: Name of the stream, as :func:`slug` returns it.
    name: str
    #: ``websocket``, ``webrtc``, ``whip`` or ``http``.
    transport: str
    version: str
    model_name: str
    model_sha256: str
    labels: tuple[str, ...]
    #: Distinguishes unnamed streams from each other; 0 for all others.
    session: int = 0


@dataclass(frozen=True, slots=True)
class ShadowResult:
    """Holds the boxes that another model version found in the same frame with the same low threshold."""

    version: str
    model_name: str
    model_sha256: str
    boxes: Boxes


@dataclass(frozen=True, slots=True)
class SampleCandidate:
    """Holds one frame and its boxes.

    Boxes are xyxy in pixels of the upright image, with shape (N, 6), highest score first.
    """

    stream: StreamInfo
    #: Arrival of the frame, unix seconds.
    captured_at: float
    #: Sequence number in its stream; 0 for posted images.
    seq: int
    #: The threshold that the caller requested, and the one with which ``boxes`` were found, which may be
    #: lower.
    threshold: float
    low_threshold: float
    iou_threshold: float
    #: Classes that the caller requested, empty for all. Only these classes were detected.
    class_ids: tuple[int, ...]
    #: Size of the upright image in pixels.
    width: int
    height: int
    #: Clockwise quarter turns requested by the sender, in addition to the EXIF orientation.
    rotation: int
    #: The image in the form that ``source`` names; a :class:`DecodedFrame` before the candidate is packed.
    data: bytes | memoryview | DecodedFrame
    boxes: Boxes
    #: Boxes over ``threshold`` of the previous and of the next frame; None if that frame is missing or not
    #: close in time.
    before: Boxes | None = None
    after: Boxes | None = None
    #: Result of the shadow run; None if there was none.
    shadow: ShadowResult | None = None
    #: Whether a person reported this frame, and the note that they wrote.
    reported: bool = False
    note: str = ""
    #: ORIGINAL, PIXELS or ENCODED.
    source: str = ORIGINAL
    #: Whether boxes of different classes suppressed each other, too.
    agnostic_nms: bool = False

    @property
    def size_bytes(self) -> int:
        """Bytes of the image in its present form."""
        return len(self.data) if isinstance(self.data, bytes) else self.data.nbytes


def pack_candidate(candidate: SampleCandidate) -> bytes:
    """Return the candidate as one msgpack map; the inverse of :func:`unpack_candidate`.

    Converts video frames to pixels, which takes a millisecond or two: do not call it on the event loop.
    """
    fields: dict[str, Any] = {
        field.name: getattr(candidate, field.name) for field in dataclasses.fields(SampleCandidate)
    }
    if not isinstance(candidate.data, bytes | memoryview):
        fields["data"] = np.ascontiguousarray(candidate.data.pixels()).data.cast("B")
        fields["source"] = PIXELS
    fields["stream"] = dataclasses.asdict(candidate.stream)
    for name in ("boxes", "before", "after"):
        fields[name] = _pack_boxes(fields[name])
    if candidate.shadow is not None:
        fields["shadow"] = dataclasses.asdict(candidate.shadow) | {
            "boxes": _pack_boxes(candidate.shadow.boxes)
        }
    packed: bytes = msgpack.packb(fields)
    return packed


def unpack_candidate(data: bytes) -> SampleCandidate:
    """Return the candidate in packed bytes. Raises MalformedCandidate, which says what is wrong."""
    try:
        fields = msgpack.unpackb(data)
        stream = fields["stream"]
        stream["labels"] = tuple(stream["labels"])
        fields["stream"] = StreamInfo(**stream)
        fields["class_ids"] = tuple(fields["class_ids"])
        for name in ("boxes", "before", "after"):
            fields[name] = _unpack_boxes(fields[name])
        if fields["shadow"] is not None:
            shadow = fields["shadow"]
            fields["shadow"] = ShadowResult(**shadow | {"boxes": _unpack_boxes(shadow["boxes"])})
        candidate = SampleCandidate(**fields)
        _check_size(candidate)
    except (KeyError, TypeError, ValueError, AttributeError, msgpack.UnpackException) as error:
        raise MalformedCandidate(f"not a candidate: {error!r:.200}") from error
    return candidate


def _check_size(candidate: SampleCandidate) -> None:
    expected = 3 * candidate.width * candidate.height
    if candidate.source == PIXELS and candidate.size_bytes != expected:
        raise ValueError(f"{candidate.size_bytes} bytes are no {candidate.width}x{candidate.height} pixels")


def _pack_boxes(boxes: Boxes | None) -> bytes | None:
    return None if boxes is None else np.ascontiguousarray(boxes, "<f4").tobytes()


def _unpack_boxes(data: bytes | None) -> Boxes | None:
    if data is None:
        return None
    boxes: Boxes = np.frombuffer(data, "<f4").reshape(-1, 6)
    if not np.isfinite(boxes).all():
        raise ValueError("boxes hold values that are not finite")
    return boxes
