"""Draws boxes on a picture, and encodes it as JPEG: the answer for people who look, not parse."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2

from inference.core.detections import Boxes
from streamer.imaging.decode import Image

_FONT = cv2.FONT_HERSHEY_SIMPLEX
#: Neighbouring class ids get hues far apart.
_GOLDEN_RATIO = 0.618034
_QUALITY = 90
_MAX_LABEL_CHARS = 40


def annotate(image: Image, boxes: Boxes, labels: Sequence[str]) -> bytes:
    """Return ``image`` (uint8 BGR, drawn upon) with its boxes as JPEG bytes.

    ``boxes`` is float32 (N, 6) xyxy, score, class id in pixels of ``image``. A class id without a label
    shows as its number. Raises RuntimeError when the picture cannot be encoded.
    """
    draw_boxes(image, boxes.tolist(), labels)
    done, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not done:
        raise RuntimeError(f"cannot encode a picture of shape {image.shape}")
    return encoded.tobytes()


def draw_boxes(image: Image, rows: Sequence[Sequence[float]], labels: Sequence[str]) -> None:
    """Draw on ``image`` (uint8 BGR); rows are x1, y1, x2, y2, score, class id and more, best first."""
    # Lines and letters keep their share of the picture from thumbnails to posters.
    unit = max(image.shape[:2]) / 640
    thickness = max(1, round(2 * unit))
    scale = max(0.3, 0.5 * unit)
    # Best last, so that it lies on top.
    for x1, y1, x2, y2, score, class_id, *_ in reversed(rows):
        number = int(class_id)
        colour = class_colour(number)
        left, top, right, bottom = round(x1), round(y1), round(x2), round(y2)
        cv2.rectangle(image, (left, top), (right, bottom), colour, thickness, cv2.LINE_AA)
        label = labels[number] if 0 <= number < len(labels) else str(number)
        _write_label(image, f"{_drawable(label)} {score:.2f}", (left, top), colour, scale)


def class_colour(class_id: int) -> tuple[int, int, int]:
    """Return the BGR colour of a class, 0..255; bright enough for black letters."""
    red, green, blue = colorsys.hsv_to_rgb(class_id * _GOLDEN_RATIO % 1, 0.75, 1.0)
    return round(blue * 255), round(green * 255), round(red * 255)


def _drawable(label: str) -> str:
    """The stroke font has printable ASCII only."""
    return "".join(char if " " <= char <= "~" else "?" for char in label[:_MAX_LABEL_CHARS])


def _write_label(
    image: Image, text: str, corner: tuple[int, int], colour: tuple[int, int, int], scale: float
) -> None:
    """Write ``text`` on a filled strip above the box, or inside it at the picture's upper edge."""
    thickness = max(1, round(scale * 1.5))
    (width, height), baseline = cv2.getTextSize(text, _FONT, scale, thickness)
    left = max(0, min(corner[0], image.shape[1] - width))
    bottom = max(corner[1], height + baseline)
    cv2.rectangle(image, (left, bottom - height - baseline), (left + width, bottom), colour, cv2.FILLED)
    cv2.putText(image, text, (left, bottom - baseline // 2), _FONT, scale, (0, 0, 0), thickness, cv2.LINE_AA)
