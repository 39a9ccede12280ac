"""The typed outcome of each frame, and the ledger that counts all outcomes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from streamer.client.errors import MissingPackage

if TYPE_CHECKING:
    import supervision

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


def _frozen(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    values.setflags(write=False)
    return values


@dataclass(frozen=True, slots=True)
class Detection:
    """One box: ``(x1, y1, x2, y2)`` in pixels of the upright original, score 0..1, class."""

    box: tuple[float, float, float, float]
    score: float
    class_id: int
    label: str
    track_id: int | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Detections:
    """The boxes of one picture, best first. Arrays are read-only; iterate for one :class:`Detection` each."""

    #: float32 (N, 4): x1, y1, x2, y2 in pixels of the upright original.
    xyxy: Floats
    #: float32 (N,), 0..1.
    scores: Floats
    #: int64 (N,).
    class_ids: Integers
    #: One label per box; the class id as text when the model names no class.
    labels: tuple[str, ...]
    #: int64 (N,), or None unless the stream asked for tracking.
    track_ids: Integers | None = None

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[float]], labels: Sequence[str]) -> Detections:
        """Make from wire rows ``[x1, y1, x2, y2, score, class_id(, track_id)]`` and the model's labels."""
        table = np.asarray(rows, dtype=np.float64).reshape(len(rows), -1) if len(rows) else np.empty((0, 6))
        class_ids = table[:, 5].astype(np.int64)
        return cls(
            xyxy=_frozen(table[:, :4].astype(np.float32)),
            scores=_frozen(table[:, 4].astype(np.float32)),
            class_ids=_frozen(class_ids),
            labels=tuple(labels[i] if 0 <= i < len(labels) else str(i) for i in class_ids.tolist()),
            track_ids=_frozen(table[:, 6].astype(np.int64)) if table.shape[1] > 6 else None,
        )

    @classmethod
    def from_json(cls, items: Sequence[Mapping[str, Any]]) -> Detections:
        """Make from the ``detections`` of a predict answer."""
        return cls(
            xyxy=_frozen(np.array([item["box"] for item in items], dtype=np.float32).reshape(-1, 4)),
            scores=_frozen(np.array([item["score"] for item in items], dtype=np.float32)),
            class_ids=_frozen(np.array([item["class_id"] for item in items], dtype=np.int64)),
            labels=tuple(str(item["label"]) for item in items),
        )

    def scaled(self, x: float, y: float) -> Detections:
        """Return the boxes multiplied by ``x`` and ``y``: from a reduced picture back to its original."""
        if x == 1.0 and y == 1.0:
            return self
        factors = np.array([x, y, x, y], dtype=np.float32)
        return Detections(
            _frozen(self.xyxy * factors), self.scores, self.class_ids, self.labels, self.track_ids
        )

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        tracks = [None] * len(self) if self.track_ids is None else self.track_ids.tolist()
        columns = (self.xyxy.tolist(), self.scores.tolist(), self.class_ids.tolist(), self.labels, tracks)
        for (x1, y1, x2, y2), score, class_id, label, track in zip(*columns, strict=True):
            yield Detection((x1, y1, x2, y2), score, class_id, label, track)

    def to_supervision(self) -> supervision.Detections:
        """Return a ``supervision.Detections`` with ``data["class_name"]``.

        Raises MissingPackage when the package ``supervision`` is not installed.
        """
        try:
            import supervision  # noqa: PLC0415 - optional, heavy, and only for those who ask
        except ImportError as error:
            raise MissingPackage(
                "to_supervision() needs the package `supervision`; install it with: pip install supervision"
            ) from error
        return supervision.Detections(
            xyxy=self.xyxy.copy(),
            confidence=self.scores.copy(),
            class_id=self.class_ids.astype(int),
            tracker_id=None if self.track_ids is None else self.track_ids.astype(int),
            data={"class_name": np.array(self.labels, dtype=str)},
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one sent frame. ``tag`` is whatever came with the offer; ``captured_s`` too."""

    seq: int
    #: Capture time as given with the offer, seconds; else the client's monotonic clock at the offer.
    captured_s: float
    tag: Any


@dataclass(frozen=True, slots=True)
class Result(Outcome):
    """The boxes of a frame, in pixels of the picture that was offered (upright), ``width`` x ``height``."""

    detections: Detections
    width: int
    height: int
    #: Parameter generation that produced the boxes: the number returned by ``configure``, 0 at first.
    cfg: int
    #: From the send call to the result's arrival, seconds.
    round_trip_s: float
    #: The server's account: ``queue_ms``, ``infer_ms``, ``server_ms``.
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    #: Whether a part of the frame was missing or wrong when it was decoded.
    damaged: bool = False


@dataclass(frozen=True, slots=True)
class Drop(Outcome):
    """A frame that was sent but not inferred.

    ``reason`` is the server's (superseded, stale, rate, decode_error, no_keyframe, overload), or the
    client's own: ``disconnected`` (live: in flight when the connection was lost), ``closed``.
    """

    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class FrameError(Outcome):
    """A frame that ended with an error of its own; the stream goes on."""

    code: str
    message: str
    retry_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one image sent with :func:`streamer.client.predict`."""

    detections: Detections
    width: int
    height: int
    #: Model as the answer names it: ``version``, ``name``, ``sha256``.
    model: Mapping[str, Any]
    timings_ms: Mapping[str, float]
    request_id: str
    #: Whether a part of the image was missing or wrong when it was decoded.
    damaged: bool = False


@dataclass(slots=True)
class Ledger:
    """``offered = skipped + waiting + sent`` and ``sent = results + dropped + errors + in flight``.

    A skipped picture never left this side; a sent one got a sequence number.
    """

    offered: int = 0
    sent: int = 0
    #: Taken, but not sent yet: waiting for their turn or being encoded.
    waiting: int = 0
    in_flight: int = 0
    results: int = 0
    #: Frames sent again after a reconnect (mode all); they count once in ``sent``.
    resent: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def balance(self) -> int:
        """Pictures that the counts cannot explain: zero, or there is a bug."""
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
        """Return the counts as they are now."""
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
        """Return the counts as plain values, ``balance`` included."""
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
