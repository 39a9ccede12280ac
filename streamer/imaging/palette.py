"""Defines the colours of classes and the text of scores like `static/js/palette.js`; a test compares both."""

from __future__ import annotations

import math

#: Colours of Okabe and Ito, lightened for dark backgrounds, as red, green, blue. Neighbours also differ in
#: lightness.
_COLOURS = (
    (0x5C, 0xC8, 0xFF),
    (0xFF, 0xB0, 0x00),
    (0x3D, 0xDC, 0x97),
    (0xFF, 0x8F, 0xC7),
    (0xF7, 0xE4, 0x63),
    (0xFF, 0x78, 0x47),
    (0xA7, 0x9B, 0xFF),
    (0xE8, 0xEE, 0xF4),
)


def class_colour(class_id: int) -> tuple[int, int, int]:
    """Return red, green and blue of a class, 0..255, light enough for dark letters on it."""
    return _COLOURS[class_id % len(_COLOURS)]


def score_text(score: float) -> str:
    """Return a score of 0..1 as whole percent, as people read it; half a percent is rounded up."""
    return f"{math.floor(score * 100 + 0.5)}%"
