"""Defines a pair: what two versions found on one frame. Shadow runs make pairs; a `PairSink` takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from inference.core.detections import Boxes
from inference.ipc.served_model import ServedModel
from streamer.imaging.frame import DecodedFrame
from streamer.scheduling.job import Prediction


# Nobody changes an instance, but a frozen class would make each construction three times as slow.
@dataclass(slots=True)
class VersionResult:
    """Holds what one version found on the frame of a pair, and with which model and threshold."""

    version: str
    model_name: str
    model_sha256: str
    #: Labels by class id; the two sides of a pair may have different ones.
    labels: tuple[str, ...]
    #: Score that a box has at least; the default of the side's model if the client has set none.
    threshold: float
    #: float32 (N, 6): x1, y1, x2, y2 in pixels of the upright image, score, class id, highest score first.
    boxes: Boxes
    #: Time of the model run in which the frame was, and the number of frames in that run.
    inference_ms: float
    batch_size: int

    @classmethod
    def of(cls, model: ServedModel, threshold: float, found: Prediction) -> VersionResult:
        """Return what a model has found."""
        info = model.info
        return cls(
            model.version,
            info.name,
            info.sha256,
            info.labels,
            threshold,
            found.boxes,
            found.inference_ms,
            found.batch_size,
        )


@dataclass(slots=True)
class ComparedPair:
    """Holds the results of two versions on one frame.

    Frames are drawn by a hash of their stream and number, two neighbours of a stream at a time.
    """

    #: Identifies the stream, as 16 hexadecimal digits: a hash of its name, or of a random number.
    stream: str
    #: Sequence number of the frame in its stream. It rises, with gaps where frames were dropped or not drawn.
    seq: int
    #: Arrival of the frame in unix seconds.
    at: float
    #: Size of the upright image in pixels.
    width: int
    height: int
    #: The version that has answered the client, and the one that ran the frame for comparison only.
    served: VersionResult
    shadow: VersionResult
    #: The encoded image, or the video frame, and the clockwise quarter turns that make it upright. Whoever
    #: keeps it longer than `PairSink.add` runs bounds what it keeps.
    data: bytes | memoryview | DecodedFrame
    rotation: int
    #: Whether the image may be stored or shown: sampling is on, and neither the client nor the operator has
    #: excluded the stream.
    may_keep_image: bool
    #: Whether neighbouring frames of the stream follow each other in time; posted images do not.
    consecutive: bool = True


class PairSink(Protocol):
    """Takes pairs, on the event loop of a worker."""

    def add(self, pair: ComparedPair) -> None:
        """Take one pair. It must neither wait nor raise, and return within a millisecond."""
