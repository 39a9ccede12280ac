"""Draws boxes on images, for annotated answers and videos of the service and for the commands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from streamer.imaging.palette import class_colour, class_dash, score_text

#: uint8 (H, W, 3), BGR. The client uses this module too, so it imports neither the decoder nor `inference`.
Image = npt.NDArray[np.uint8]

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_QUALITY = 90
_MAX_LABEL_CHARS = 40


class LabelledBox(Protocol):
    """A box to draw; `streamer.client.Detection` satisfies this protocol."""

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Corners x1, y1, x2, y2 in pixels of the image."""

    @property
    def score(self) -> float:
        """Score, 0..1."""

    @property
    def class_id(self) -> int:
        """Class id."""

    @property
    def label(self) -> str:
        """Name of the class."""

    @property
    def track_id(self) -> int | None:
        """Track id; None or 0 if the box is not tracked."""

    @property
    def text(self) -> str | None:
        """What the code in the box contains; None if it was not read."""


@dataclass(frozen=True, slots=True)
class _Row:
    box: tuple[float, float, float, float]
    score: float
    class_id: int
    label: str
    track_id: int | None
    text: str | None = None


def annotate(
    image: Image, boxes: npt.NDArray[np.float32], labels: Sequence[str], texts: Sequence[str | None] = ()
) -> bytes:
    """Draw the boxes on ``image`` (uint8 BGR, changed in place) and return it as JPEG bytes.

    ``boxes`` is float32 (N, 6): x1, y1, x2, y2 in pixels of ``image``, score and class id. A class id
    without a label is shown as its number. ``texts`` are those of codes, by row, and may be fewer.
    Raises RuntimeError if the image cannot be encoded.
    """
    draw_boxes(image, label_rows(boxes.tolist(), labels, texts))
    done, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not done:
        raise RuntimeError(f"cannot encode an image of shape {image.shape}")
    return encoded.tobytes()


def label_rows(
    rows: Sequence[Sequence[float]], labels: Sequence[str], texts: Sequence[str | None] = ()
) -> list[LabelledBox]:
    """Convert rows of x1, y1, x2, y2, score, class id and an optional track id to boxes to draw.

    ``texts`` are those of codes, by row; there may be fewer of them.
    """
    boxes: list[LabelledBox] = []
    for (x1, y1, x2, y2, score, class_id, *track), text in zip_longest(rows, texts[: len(rows)]):
        number = int(class_id)
        label = labels[number] if 0 <= number < len(labels) else str(number)
        boxes.append(_Row((x1, y1, x2, y2), score, number, label, int(track[0]) if track else None, text))
    return boxes


def draw_boxes(image: Image, boxes: Iterable[LabelledBox]) -> None:
    """Draw on ``image`` (uint8 BGR). ``boxes`` are sorted best first; the best one is drawn on top."""
    for box in reversed(list(boxes)):
        track = f" #{box.track_id}" if box.track_id else ""
        content = f" {_drawable(box.text)}" if box.text else ""
        text = f"{_drawable(box.label)}{track} {score_text(box.score)}{content}"
        draw_box(image, box.box, text, box_colour(box.class_id), class_dash(box.class_id))


def draw_box(
    image: Image,
    box: Sequence[float],
    text: str,
    colour: tuple[int, int, int],
    dash: Sequence[float] = (),
) -> None:
    """Draw one box, x1 y1 x2 y2 in pixels, on ``image`` (uint8 BGR), with a text above it unless it is empty.

    ``dash`` are the lengths of a dash and of its gap, in 640ths of the longer side; empty: a solid line.
    """
    # Scale the line width and the font with the image, so that thumbnails and large images are readable.
    unit = max(image.shape[:2]) / 640
    thickness = max(1, round(2 * unit))
    left, top, right, bottom = (round(value) for value in box)
    if dash:
        drawn, gap = (max(1, round(length * unit)) for length in dash)
        _draw_dashed(image, (left, top, right, bottom), colour, (drawn, gap), thickness)
    else:
        cv2.rectangle(image, (left, top), (right, bottom), colour, thickness, cv2.LINE_AA)
    if text:
        _write_label(image, text, (left, top), colour, max(0.3, 0.5 * unit))


def draw_on_copy(image: Image, boxes: Iterable[LabelledBox]) -> Image:
    """Return a copy of ``image`` with the boxes drawn on it."""
    copy = image.copy()
    draw_boxes(copy, boxes)
    return copy


def box_colour(class_id: int) -> tuple[int, int, int]:
    """Return the BGR colour of a class, 0..255: the one that the demo page gives it."""
    red, green, blue = class_colour(class_id)
    return blue, green, red


def _draw_dashed(
    image: Image,
    box: tuple[int, int, int, int],
    colour: tuple[int, int, int],
    dash: tuple[int, int],
    thickness: int,
) -> None:
    """Draw the outline of a box with dashes that run clockwise from its upper left corner."""
    left, top, right, bottom = box
    across = right - left
    down = bottom - top
    columns = image.swapaxes(0, 1)
    sides = (
        (image, top, (left, right), 0),
        (columns, right, (top, bottom), across),
        (image, bottom, (right, left), across + down),
        (columns, left, (bottom, top), 2 * across + down),
    )
    # OpenCV's lines are symmetrical too: those of two pixels are three wide.
    half = thickness // 2
    for lines, at, (start, end), distance in sides:
        first, last = max(at - half, 0), max(at + half + 1, 0)
        along = np.arange(max(min(start, end), 0), min(max(start, end) + 1, lines.shape[1]))
        is_drawn = (distance + np.abs(along - start)) % sum(dash) < dash[0]
        lines[first:last, along[is_drawn]] = colour


def _drawable(label: str) -> str:
    """Return the beginning of a text in printable ASCII, because the font has no other characters."""
    return "".join(char if " " <= char <= "~" else "?" for char in label[:_MAX_LABEL_CHARS])


def _write_label(
    image: Image, text: str, corner: tuple[int, int], colour: tuple[int, int, int], scale: float
) -> None:
    """Write ``text`` on a filled strip above the box, or inside the box at the upper edge of the image."""
    thickness = max(1, round(scale * 1.5))
    (width, height), baseline = cv2.getTextSize(text, _FONT, scale, thickness)
    left = max(0, min(corner[0], image.shape[1] - width))
    bottom = max(corner[1], height + baseline)
    cv2.rectangle(image, (left, bottom - height - baseline), (left + width, bottom), colour, cv2.FILLED)
    cv2.putText(image, text, (left, bottom - baseline // 2), _FONT, scale, (0, 0, 0), thickness, cv2.LINE_AA)
