"""Tests the demo page's contrast in both themes: text 4.5:1, controls 3:1 (WCAG 2.2, level AA)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

STATIC = Path(__file__).resolve().parents[2] / "static"
SURFACES = ("background", "surface", "surface-raised", "start-from", "start-to")
TEXTS = ("text", "text-muted", "accent", "warning", "error")
_COLOUR = re.compile(r"--([a-z-]+): (#[0-9a-f]{6});")


def colours(theme: str) -> dict[str, str]:
    dark = dict(_COLOUR.findall((STATIC / "page.css").read_text()))
    light = dict(_COLOUR.findall((STATIC / "theme-light.css").read_text()))
    assert set(light) == set(dark), "a theme lacks colours of the other"
    return light if theme == "light" else dark


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour, as WCAG 2.2 defines it."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    darker, lighter = sorted((luminance(first), luminance(second)))
    return (lighter + 0.05) / (darker + 0.05)


def test_the_formula() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_text_and_controls_stand_out(theme: str) -> None:
    values = colours(theme)
    for surface in SURFACES:
        for text in TEXTS:
            assert contrast(values[text], values[surface]) >= 4.5, (text, surface)
        assert contrast(values["control-border"], values[surface]) >= 3, surface
    assert contrast(values["on-accent"], values["accent"]) >= 4.5


def test_labels_on_their_class_colours_can_be_read() -> None:
    palette = re.findall(r"'(#[0-9a-f]{6})'", (STATIC / "js" / "palette.js").read_text())
    (text,) = re.findall(r"LABEL_TEXT_COLOUR = '(#[0-9a-f]{6})'", (STATIC / "js" / "overlay.js").read_text())
    assert len(palette) == 8
    for colour in palette:
        assert contrast(text, colour) >= 4.5, colour
