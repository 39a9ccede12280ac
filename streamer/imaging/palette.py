"""Defines colours, dashes and score texts like `static/js/palette.js`; a test compares both."""

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
#: Lengths of a dash and of the gap after it, for classes of the same colour; empty: a solid line.
_DASHES: tuple[tuple[float, ...], ...] = ((), (10, 5), (3, 4))


def class_colour(class_id: int) -> tuple[int, int, int]:
    """Return red, green and blue of a class, 0..255, light enough for dark letters on it."""
    return _COLOURS[class_id % len(_COLOURS)]


def class_dash(class_id: int) -> tuple[float, ...]:
    """Return the lengths of a dash and of its gap, which tell classes of the same colour apart; empty: solid.

    They are in CSS pixels on the page, and in 640ths of the longer side on images.
    """
    return _DASHES[class_id // len(_COLOURS) % len(_DASHES)]


def score_text(score: float) -> str:
    """Return a score of 0..1 as whole percent, as people read it; half a percent is rounded up."""
    return f"{math.floor(score * 100 + 0.5)}%"
