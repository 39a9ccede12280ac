"""Defines the boxes of one frame or image, as the client library returns them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, overload

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
    """One box: ``(x1, y1, x2, y2)`` in pixels of the upright original, its score (0..1) and its class."""

    box: tuple[float, float, float, float]
    score: float
    class_id: int
    label: str
    track_id: int | None = None
    #: What the code in the box contains; None if the server has read none. Do not trust it.
    text: str | None = None
    #: Symbology of that code, such as ``QR Code`` or ``EAN-13``.
    format: str | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Detections:
    """The boxes of one frame or image, best first.

    The arrays are read-only; iterating yields a `Detection` per box, and ``detections[0]`` is the best one.
    """

    #: float32 (N, 4): x1, y1, x2, y2 in pixels of the upright original.
    xyxy: Floats
    #: float32 (N,), 0..1.
    scores: Floats
    #: int64 (N,).
    class_ids: Integers
    #: One label per box; the class id as text when the model has no label for it.
    labels: tuple[str, ...]
    #: int64 (N,); None when tracking is off.
    track_ids: Integers | None = None
    #: What the codes in the boxes contain, None for a box without a text; None when the server has read none.
    texts: tuple[str | None, ...] | None = None
    #: Symbologies of the codes with texts, in the same form.
    formats: tuple[str | None, ...] | None = None

    @classmethod
    def from_rows(
        cls,
        rows: Sequence[Sequence[float]],
        labels: Sequence[str],
        texts: object = None,
        formats: object = None,
    ) -> Detections:
        """Create from wire rows ``[x1, y1, x2, y2, score, class_id(, track_id)]`` and the model's labels.

        ``texts`` and ``formats`` are the fields ``text`` and ``format`` of the message.
        """
        table = np.asarray(rows, dtype=np.float64).reshape(len(rows), -1) if len(rows) else np.empty((0, 6))
        class_ids = table[:, 5].astype(np.int64)
        return cls(
            xyxy=_frozen(table[:, :4].astype(np.float32)),
            scores=_frozen(table[:, 4].astype(np.float32)),
            class_ids=_frozen(class_ids),
            labels=tuple(labels[i] if 0 <= i < len(labels) else str(i) for i in class_ids.tolist()),
            track_ids=_frozen(table[:, 6].astype(np.int64)) if table.shape[1] > 6 else None,
            texts=_texts(texts, len(rows)),
            formats=_texts(formats, len(rows)),
        )

    @classmethod
    def from_json(cls, items: Sequence[Mapping[str, Any]]) -> Detections:
        """Create from the ``detections`` of a predict answer."""
        return cls(
            xyxy=_frozen(np.array([item["box"] for item in items], dtype=np.float32).reshape(-1, 4)),
            scores=_frozen(np.array([item["score"] for item in items], dtype=np.float32)),
            class_ids=_frozen(np.array([item["class_id"] for item in items], dtype=np.int64)),
            labels=tuple(str(item["label"]) for item in items),
            texts=_texts([item.get("text") for item in items], len(items)),
            formats=_texts([item.get("format") for item in items], len(items)),
        )

    def scaled(self, x: float, y: float) -> Detections:
        """Return the boxes multiplied by ``x`` and ``y``: converted from a reduced image to its original."""
        if x == 1.0 and y == 1.0:
            return self
        factors = np.array([x, y, x, y], dtype=np.float32)
        return replace(self, xyxy=_frozen(self.xyxy * factors))

    def __len__(self) -> int:
        return len(self.scores)

    @overload
    def __getitem__(self, key: int | np.integer[Any]) -> Detection: ...

    @overload
    def __getitem__(self, key: slice | npt.NDArray[Any] | Sequence[Any]) -> Detections: ...

    def __getitem__(self, key: Any) -> Detection | Detections:
        """Return the box at an index, or the boxes that a slice, a list of indices or a mask (N,) selects.

        Raises IndexError for an index out of range or with more than one dimension.
        """
        rows = np.arange(len(self))[key]
        if rows.ndim > 1:
            raise IndexError(f"an index of {rows.ndim} dimensions: the boxes of a frame have one")
        labels = [self.labels[row] for row in np.atleast_1d(rows)]
        tracks = None if self.track_ids is None else _frozen(np.atleast_1d(self.track_ids[rows]))
        chosen = Detections(
            _frozen(self.xyxy[rows].reshape(-1, 4)),
            _frozen(np.atleast_1d(self.scores[rows])),
            _frozen(np.atleast_1d(self.class_ids[rows])),
            tuple(labels),
            tracks,
            _chosen(self.texts, rows),
            _chosen(self.formats, rows),
        )
        return next(iter(chosen)) if rows.ndim == 0 else chosen

    def __iter__(self) -> Iterator[Detection]:
        nothing = [None] * len(self)
        tracks = nothing if self.track_ids is None else self.track_ids.tolist()
        columns = (
            self.xyxy.tolist(),
            self.scores.tolist(),
            self.class_ids.tolist(),
            self.labels,
            tracks,
            self.texts or nothing,
            self.formats or nothing,
        )
        for (x1, y1, x2, y2), *rest in zip(*columns, strict=True):
            yield Detection((x1, y1, x2, y2), *rest)

    def to_supervision(self) -> supervision.Detections:
        """Return a ``supervision.Detections`` with ``data["class_name"]``, and ``data["text"]`` of codes.

        Raises MissingPackage when the package ``supervision`` is not installed.
        """
        try:
            import supervision  # noqa: PLC0415 - an optional package that loads slowly
        except ImportError as error:
            raise MissingPackage(
                "to_supervision() needs the package `supervision`; install it with: pip install supervision"
            ) from error
        data = {"class_name": np.array(self.labels, dtype=str)}
        if self.texts is not None:
            data["text"] = np.array([text or "" for text in self.texts], dtype=str)
        return supervision.Detections(
            xyxy=self.xyxy.copy(),
            confidence=self.scores.copy(),
            class_id=self.class_ids.astype(int),
            tracker_id=None if self.track_ids is None else self.track_ids.astype(int),
            data=data,
        )


def _texts(values: object, count: int) -> tuple[str | None, ...] | None:
    """Return the texts of ``count`` boxes; None if a server sent none, or something else."""
    if not isinstance(values, list | tuple) or len(values) != count:
        return None
    texts = tuple(value if isinstance(value, str) else None for value in values)
    return texts if any(texts) else None


def _chosen(texts: tuple[str | None, ...] | None, rows: Any) -> tuple[str | None, ...] | None:
    return None if texts is None else tuple(texts[row] for row in np.atleast_1d(rows))
