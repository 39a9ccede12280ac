"""Draws boxes with their labels and track ids on BGR pixels, for --save and --show."""

from __future__ import annotations

import colorsys

import cv2

from streamer.client.pixels import Pixels
from streamer.client.results import Detection, Detections

_FONT = cv2.FONT_HERSHEY_SIMPLEX
#: A step that puts neighbouring numbers far apart on the colour wheel.
_HUE_STEP = 0.381966
_DARK, _LIGHT = (20, 20, 20), (255, 255, 255)


def draw(image: Pixels, detections: Detections) -> Pixels:
    """Return a copy of ``image`` with the boxes; tracked ones are coloured by track, others by class."""
    canvas = image.copy()
    unit = max(0.5, min(canvas.shape[:2]) / 540)
    # The weakest first, so that the best box lies on top.
    for detection in reversed(list(detections)):
        _draw_one(canvas, detection, unit)
    return canvas


def colour(number: int) -> tuple[int, int, int]:
    """Return a bright BGR colour that stays with a number."""
    red, green, blue = colorsys.hsv_to_rgb((0.33 + number * _HUE_STEP) % 1.0, 0.7, 1.0)
    return round(255 * blue), round(255 * green), round(255 * red)


def _luma(shade: tuple[int, int, int]) -> float:
    """Return how bright a BGR colour looks, 0..255 (ITU-R BT.601)."""
    return 0.114 * shade[0] + 0.587 * shade[1] + 0.299 * shade[2]


def _draw_one(canvas: Pixels, detection: Detection, unit: float) -> None:
    shade = colour(detection.track_id or detection.class_id)
    x1, y1, x2, y2 = (round(value) for value in detection.box)
    cv2.rectangle(canvas, (x1, y1), (x2, y2), shade, max(1, round(2 * unit)), cv2.LINE_AA)
    track = f" #{detection.track_id}" if detection.track_id else ""
    text = f"{_plain(detection.label)}{track} {detection.score:.2f}"
    size, stroke = 0.5 * unit, max(1, round(unit))
    (width, height), below = cv2.getTextSize(text, _FONT, size, stroke)
    pad = max(1, round(2 * unit))
    tag_height = height + below + 2 * pad
    left = max(0, min(x1, canvas.shape[1] - width - 2 * pad))
    # Above the box; inside it where the picture ends.
    top = y1 - tag_height if y1 >= tag_height else max(0, y1)
    cv2.rectangle(canvas, (left, top), (left + width + 2 * pad, top + tag_height), shade, cv2.FILLED)
    ink = _LIGHT if _luma(shade) < 130 else _DARK
    cv2.putText(canvas, text, (left + pad, top + pad + height), _FONT, size, ink, stroke, cv2.LINE_AA)


def _plain(label: str) -> str:
    """The font knows ASCII only."""
    return label[:40].encode("ascii", "replace").decode()
