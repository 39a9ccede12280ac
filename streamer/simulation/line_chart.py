"""Draws line charts over hours as SVG, without a library for plots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

#: Sizes in units of the view box. The letters stay legible where the chart is shown 340 pixels wide.
_WIDTH, _PANEL, _TOP, _LEFT, _RIGHT, _GAP = 640, 190, 46, 64, 14, 74
_FONT = 17
#: Colours that people with any kind of colour vision tell apart (Okabe and Ito); all on white.
BLUE, RED, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#767676"
#: Most points of a line; of several values that fall on one point, the highest is drawn.
_POINTS = 480


@dataclass(frozen=True, slots=True)
class Series:
    """Holds one line: values at equal distances over the whole time; shape (n,)."""

    name: str
    values: NDArray[np.float64] | NDArray[np.int64]
    color: str
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """Holds lines that share a vertical axis from 0."""

    title: str
    series: tuple[Series, ...]


def line_chart(title: str, hours: float, panels: Sequence[Panel]) -> str:
    """Return an SVG document with the panels below each other; the horizontal axis has ``hours``."""
    height = _TOP + len(panels) * (_PANEL + _GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="{_FONT}" fill="#1f2328">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="26" font-weight="600">{escape(title)}</text>',
    ]
    for number, panel in enumerate(panels):
        parts += _panel(panel, hours, _TOP + number * (_PANEL + _GAP) + 24)
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel, hours: float, top: float) -> list[str]:
    highest = max(float(series.values.max()) for series in panel.series)
    step = nice_step(highest)
    limit = max(step, math.ceil(highest / step) * step)
    width = _WIDTH - _LEFT - _RIGHT
    bottom = top + _PANEL - 24
    parts = [f'<text x="{_LEFT}" y="{top - 8:g}">{escape(panel.title)}</text>']
    for value in np.arange(0, limit + step / 2, step):
        y = bottom - (bottom - top) * value / limit
        parts.append(f'<path d="M{_LEFT} {y:.1f}h{width}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 6:.1f}" text-anchor="end">{value:,.10g}</text>')
    every = 6 if hours <= 48 else 24 * math.ceil(hours / 24 / 8)
    for hour in np.arange(0, hours + 0.1, every):
        x = _LEFT + width * hour / hours
        anchor = "start" if hour == 0 else "end" if hour >= hours - 0.1 else "middle"
        label = f"{hour:g} h" if hours <= 48 else f"day {hour / 24:g}"
        parts.append(f'<text x="{x:.1f}" y="{bottom + 20:.1f}" text-anchor="{anchor}">{label}</text>')
    x = float(_LEFT)
    for series in panel.series:
        dash = ' stroke-dasharray="7 5"' if series.dashed else ""
        stroke = f'fill="none" stroke="{series.color}" stroke-width="2.5"{dash}'
        line = _line(series.values, limit, (_LEFT, width), (bottom, top))
        parts.append(f'<path d="{line}" {stroke} stroke-linejoin="round"/>')
        parts.append(f'<path d="M{x:g} {bottom + 39:g}h24" {stroke}/>')
        parts.append(f'<text x="{x + 30:g}" y="{bottom + 45:g}">{escape(series.name)}</text>')
        x += 54 + 9.2 * len(series.name)
    return parts


def _line(
    values: NDArray[np.float64] | NDArray[np.int64],
    limit: float,
    horizontal: tuple[float, float],
    vertical: tuple[float, float],
) -> str:
    size = math.ceil(len(values) / _POINTS)
    padded = np.concatenate([values, np.full(-len(values) % size, values[-1])]).reshape(-1, size)
    points = padded.max(axis=1)
    left, width = horizontal
    bottom, top = vertical
    drawn: list[str] = []
    for i, value in enumerate(points.tolist()):
        # Between equal neighbours a point adds nothing.
        if 0 < i < len(points) - 1 and points[i - 1] == value == points[i + 1]:
            continue
        x = left + width * i / max(1, len(points) - 1)
        drawn.append(f"{x:.1f} {bottom + (top - bottom) * value / limit:.1f}")
    return "M" + "L".join(drawn)


def nice_step(highest: float) -> float:
    """Return a round distance of the lines of a grid, so that three to six of them reach ``highest``."""
    rough = max(highest, 1e-9) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return max(1.0, step)
