"""A candidate: a finished detection and its picture, on its way to the observer. Pure."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np

from inference.core.detections import Boxes
from streamer.imaging.frame import Picture

#: Largest candidate on the wire: the largest image of a POST that can be configured sensibly, and its boxes.
MAX_BYTES = 64 << 20


#: What ``Candidate.data`` is: the encoded picture as it came,
ORIGINAL = "original"
#: pixels of a video's picture (BGR rows), which are never stored,
PIXELS = "pixels"
#: or such pixels as a JPEG of this quality.
JPEG_QUALITY = 95
ENCODED = f"encoded_q{JPEG_QUALITY}"


class MalformedCandidate(Exception):
    """Bytes that are no candidate; only a worker of another version could send them."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the frames of one stream come from and what looks at them; the same for all of its candidates."""

    #: Name as it stands in keys: ``[a-z0-9-]``, 64 at most.
    stream: str
    #: ``websocket``, ``webrtc``, ``whip`` or ``http``.
    transport: str
    version: str
    model_name: str
    model_sha256: str
    labels: tuple[str, ...]
    #: Tells streams of one name apart, where the name is nobody's own; else 0.
    session: int = 0


@dataclass(frozen=True, slots=True)
class Rival:
    """What another model found in the same frame, down to the same lower threshold."""

    version: str
    model_name: str
    model_sha256: str
    boxes: Boxes


@dataclass(frozen=True, slots=True)
class Candidate:
    """One frame and its boxes. Boxes are xyxy in pixels of the upright picture, (N, 6), best first."""

    origin: Origin
    #: Unix time of the frame's arrival, seconds.
    captured_at: float
    #: Sequence number in its stream; 0 for POSTs.
    seq: int
    #: The caller's threshold, and the lower one down to which ``boxes`` reach.
    threshold: float
    low_threshold: float
    iou_threshold: float
    #: Classes that the caller asked for; empty: all. Others were not looked for.
    class_ids: tuple[int, ...]
    #: Size of the upright picture in pixels.
    width: int
    height: int
    #: Clockwise quarter turns that the sender said, on top of the EXIF orientation.
    rotation: int
    #: The picture, as ``source`` says; a :class:`Picture` until it is packed.
    data: bytes | memoryview | Picture
    boxes: Boxes
    #: Boxes over ``threshold`` of the frames just before and after; None where there was none close by.
    before: Boxes | None = None
    after: Boxes | None = None
    #: None where no other model looked.
    rival: Rival | None = None
    #: A person asked for this frame.
    reported: bool = False
    note: str = ""
    #: ORIGINAL, PIXELS or ENCODED.
    source: str = ORIGINAL

    @property
    def size_bytes(self) -> int:
        """Bytes of the picture in its present form."""
        return len(self.data) if isinstance(self.data, bytes) else self.data.nbytes


def pack_candidate(candidate: Candidate) -> bytes:
    """Return the candidate as one msgpack map; the inverse of :func:`unpack_candidate`.

    Makes the pixels of a video's picture, which takes a millisecond or two: not for the event loop.
    """
    fields: dict[str, Any] = {
        field.name: getattr(candidate, field.name) for field in dataclasses.fields(Candidate)
    }
    if not isinstance(candidate.data, bytes | memoryview):
        fields["data"] = np.ascontiguousarray(candidate.data.pixels()).data.cast("B")
        fields["source"] = PIXELS
    fields["origin"] = dataclasses.asdict(candidate.origin)
    for name in ("boxes", "before", "after"):
        fields[name] = _bytes(fields[name])
    if candidate.rival is not None:
        fields["rival"] = dataclasses.asdict(candidate.rival) | {"boxes": _bytes(candidate.rival.boxes)}
    packed: bytes = msgpack.packb(fields)
    return packed


def unpack_candidate(data: bytes) -> Candidate:
    """Rebuild a candidate. Raises MalformedCandidate saying what is wrong."""
    try:
        fields = msgpack.unpackb(data)
        origin = fields["origin"]
        origin["labels"] = tuple(origin["labels"])
        fields["origin"] = Origin(**origin)
        fields["class_ids"] = tuple(fields["class_ids"])
        for name in ("boxes", "before", "after"):
            fields[name] = _boxes(fields[name])
        if fields["rival"] is not None:
            fields["rival"] = Rival(**fields["rival"] | {"boxes": _boxes(fields["rival"]["boxes"])})
        candidate = Candidate(**fields)
        _check_size(candidate)
    except (KeyError, TypeError, ValueError, AttributeError, msgpack.UnpackException) as error:
        raise MalformedCandidate(f"not a candidate: {error!r:.200}") from error
    return candidate


def _check_size(candidate: Candidate) -> None:
    expected = 3 * candidate.width * candidate.height
    if candidate.source == PIXELS and candidate.size_bytes != expected:
        raise ValueError(f"{candidate.size_bytes} bytes are no {candidate.width}x{candidate.height} pixels")


def _bytes(boxes: Boxes | None) -> bytes | None:
    return None if boxes is None else np.ascontiguousarray(boxes, "<f4").tobytes()


def _boxes(data: bytes | None) -> Boxes | None:
    if data is None:
        return None
    boxes: Boxes = np.frombuffer(data, "<f4").reshape(-1, 6)
    if not np.isfinite(boxes).all():
        raise ValueError("boxes hold values that are not finite")
    return boxes
