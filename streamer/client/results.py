"""Defines the typed outcome of each frame, and the ledger that counts all outcomes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from streamer.client.detections import Detection, Detections
from streamer.client.errors import BadInput, MissingPackage
from streamer.core.extras import explain_missing

if TYPE_CHECKING:
    from streamer.client.encoder import ImageInput, Pixels


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one accepted frame: a result, a drop or an error.

    ``tag`` is the value that the caller passed with the frame.
    """

    seq: int
    #: Capture time in seconds as passed with the frame, or else the monotonic time at which it was offered.
    captured_s: float
    tag: Any


@dataclass(frozen=True, slots=True)
class Result(Outcome):
    """The boxes of a frame, in pixels of the frame as it was offered, upright: ``width`` x ``height``."""

    detections: Detections
    width: int
    height: int
    #: Number of the parameters that produced the boxes, as ``configure`` returned it; 0 before the first
    #: call.
    cfg: int
    #: Seconds from sending the frame to the arrival of its result.
    round_trip_s: float
    #: Times that the server measured: ``queue_ms``, ``infer_ms``, ``server_ms``.
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    #: Whether the server found a part of the frame missing or damaged.
    damaged: bool = False
    #: The server decoded the frame at 1/``reduced`` of its size, because it exceeds a limit.
    reduced: int = 1

    def __len__(self) -> int:
        return len(self.detections)

    def __iter__(self) -> Iterator[Detection]:
        return iter(self.detections)

    def draw(self, image: ImageInput) -> Pixels:
        """Return a copy of ``image`` with the boxes drawn on it: uint8 BGR (height, width, 3).

        Pass the offered frame as ``image``, because the stream does not keep it. Raises BadInput if its size
        is not that of the frame, and MissingPackage if the extra ``view`` is not installed.
        """
        return _draw(image, self)


@dataclass(frozen=True, slots=True)
class Drop(Outcome):
    """A frame that was accepted but has no result.

    ``reason`` comes from the server (superseded, stale, rate, decode_error, no_keyframe, overload) or from
    the client: ``disconnected`` (the connection was lost), ``closed`` (the stream ended), ``replaced`` or
    ``window`` (not sent), ``unanswered`` (`VideoStream`).
    """

    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class FrameError(Outcome):
    """A frame that ended with an error that concerns it alone. The stream continues."""

    code: str
    message: str
    retry_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one image sent with :func:`streamer.client.predict`."""

    detections: Detections
    width: int
    height: int
    #: The model that answered: ``version``, ``name``, ``sha256``.
    model: Mapping[str, Any]
    timings_ms: Mapping[str, float]
    request_id: str
    #: Whether the server found a part of the image missing or damaged.
    damaged: bool = False
    #: The server decoded the image at 1/``reduced`` of its size, because it exceeds a limit.
    reduced: int = 1
    #: The image as it was passed: the array, the bytes, or the path.
    image: ImageInput | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.detections)

    def __iter__(self) -> Iterator[Detection]:
        return iter(self.detections)

    def draw(self, image: ImageInput | None = None) -> Pixels:
        """Return the image with the boxes drawn on it: a new uint8 BGR array (height, width, 3).

        ``image`` replaces the image that was passed to ``predict``. Raises BadInput if it cannot be read or
        its size is not that of the answer, and MissingPackage if the extra ``view`` is not installed.
        """
        if image is None:
            image = self.image
        if image is None:
            raise BadInput("draw() needs the image: this prediction does not know it")
        return _draw(image, self)


class _Drawable(Protocol):
    @property
    def detections(self) -> Detections: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...


def _draw(image: ImageInput, result: _Drawable) -> Pixels:
    from streamer.client.encoder import as_bgr, decode, read_bytes  # noqa: PLC0415 - loads simplejpeg

    try:
        from streamer.imaging.draw import draw_on_copy  # noqa: PLC0415 - OpenCV is an extra
    except ModuleNotFoundError as error:
        raise MissingPackage(f"draw(): {explain_missing(error) or error}") from error
    pixels = as_bgr(image) if isinstance(image, np.ndarray) else decode(read_bytes(image))
    height, width = pixels.shape[:2]
    if (width, height) != (result.width, result.height):
        raise BadInput(
            f"draw(): the image is {width}x{height}, but the boxes belong to one of "
            f"{result.width}x{result.height} pixels"
        )
    return draw_on_copy(pixels, result.detections)


@dataclass(slots=True)
class Ledger:
    """Counts offered frames and their outcomes. Two equations hold at any time.

    ``offered = skipped + waiting + sent`` and ``sent = results + dropped + errors + in_flight``. A skipped
    frame was never sent; a sent frame has a sequence number.
    """

    offered: int = 0
    sent: int = 0
    #: Frames that were accepted but not sent yet: they wait or are being encoded.
    waiting: int = 0
    in_flight: int = 0
    results: int = 0
    #: Frames sent again after a reconnect (mode all); each counts once in ``sent``.
    resent: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def balance(self) -> int:
        """Number of frames that the counts do not explain. Any value but zero means a bug."""
        unsent = self.offered - self.skipped.total() - self.waiting - self.sent
        unfinished = self.sent - self.results - self.dropped.total() - self.errors.total() - self.in_flight
        return abs(unsent) + abs(unfinished)

    def account(self, outcome: Outcome) -> None:
        """Count the outcome of a frame that was sent."""
        if isinstance(outcome, Result):
            self.results += 1
        elif isinstance(outcome, Drop):
            self.dropped[outcome.reason] += 1
        elif isinstance(outcome, FrameError):
            self.errors[outcome.code] += 1

    def copy(self) -> Ledger:
        """Return a copy of the present counts."""
        return Ledger(
            self.offered,
            self.sent,
            self.waiting,
            self.in_flight,
            self.results,
            self.resent,
            self.skipped.copy(),
            self.dropped.copy(),
            self.errors.copy(),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the counts as plain values, including ``balance``."""
        return {
            "offered": self.offered,
            "sent": self.sent,
            "results": self.results,
            "dropped": dict(self.dropped),
            "errors": dict(self.errors),
            "skipped": dict(self.skipped),
            "waiting": self.waiting,
            "in_flight": self.in_flight,
            "resent": self.resent,
            "balance": self.balance,
        }
