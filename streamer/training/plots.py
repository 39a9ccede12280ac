"""Draws the curves and the confusion matrix of a training as SVG, which needs no other package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt

from streamer.training.history import Row

#: Colours that people with any colour vision can tell apart (Okabe and Ito 2008), dark enough on white.
_COLOURS = ("#0072b2", "#d55e00", "#007a5a", "#8a4b7d")
_FONT = 'font-family="system-ui, sans-serif" font-size="12"'
_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 520, 260, 48, 34, 16, 40
_TICKS = 5


@dataclass(frozen=True, slots=True)
class _Line:
    name: str
    values: Sequence[float]


def curves(rows: Sequence[Row]) -> str:
    """Return two charts over the steps: what the network scores, and its losses."""
    steps = [row.step for row in rows]
    scores = [
        _Line("mAP50", [row.map50 for row in rows]),
        _Line("mAP50-95", [row.map50_95 for row in rows]),
        _Line("precision", [row.precision for row in rows]),
        _Line("recall", [row.recall for row in rows]),
    ]
    losses = [
        _Line("loss of scores", [row.score_loss for row in rows]),
        _Line("loss of boxes", [row.box_loss for row in rows]),
    ]
    top = max([1e-6, *(value for line in losses for value in line.values)])
    parts = [
        _chart("On the pictures held out", steps, scores, 1.0, 0),
        _chart("On the pictures trained on", steps, losses, top, _HEIGHT),
    ]
    return _svg(_WIDTH, 2 * _HEIGHT, parts)


def confusion_matrix(counts: npt.NDArray[np.int64], classes: Sequence[str]) -> str:
    """Return a table of true class (rows) by found class (columns), coloured by the share of its row."""
    names = [*classes, "none"]
    cell = max(34, min(72, 560 // len(names)))
    left = 18 + 7 * max(len("true \\ found"), *(len(name) for name in names))
    top = 64
    parts = [f'<text x="8" y="{top - 12}" {_FONT}>true \\ found</text>']
    totals = np.maximum(counts.sum(1, keepdims=True), 1)
    for row, name in enumerate(names):
        y = top + row * cell
        parts.append(
            f'<text x="{left - 8}" y="{y + cell / 2 + 4}" text-anchor="end" {_FONT}>{escape(name)}</text>'
        )
        short = name if len(name) * 7 <= cell else name[: max(2, cell // 7 - 1)] + "…"
        parts.append(
            f'<text x="{left + row * cell + cell / 2}" y="{top - 12}" text-anchor="middle" {_FONT}>'
            f"<title>{escape(name)}</title>{escape(short)}</text>"
        )
        for column in range(len(names)):
            if row == column == len(names) - 1:
                continue  # where nothing is and nothing was found cannot be counted
            share = float(counts[row, column] / totals[row, 0])
            right = row == column
            colour = _mixed("#007a5a" if right else "#d55e00", share)
            ink = "#fff" if share > 0.6 else "#1a1a1a"
            parts.append(
                f'<rect x="{left + column * cell}" y="{y}" width="{cell - 2}" height="{cell - 2}" '
                f'fill="{colour}"/><text x="{left + column * cell + cell / 2 - 1}" y="{y + cell / 2 + 4}" '
                f'text-anchor="middle" fill="{ink}" {_FONT}>{int(counts[row, column])}</text>'
            )
    side = len(names) * cell
    return _svg(left + side + 8, top + side + 8, parts)


def _chart(title: str, steps: Sequence[int], lines: Sequence[_Line], top: float, offset: int) -> str:
    right, bottom = _WIDTH - _RIGHT, offset + _HEIGHT - _BOTTOM
    first = offset + _TOP
    last = max([1, *steps])

    def x(step: float) -> float:
        return _LEFT + (right - _LEFT) * step / last

    def y(value: float) -> float:
        return bottom - (bottom - first) * min(1.0, max(0.0, value / top))

    parts = [f'<text x="{_LEFT}" y="{offset + 14}" font-weight="bold" {_FONT}>{escape(title)}</text>']
    for tick in range(_TICKS):
        value = top * tick / (_TICKS - 1)
        parts.append(
            f'<line x1="{_LEFT}" x2="{right}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#ddd"/>'
            f'<text x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end" {_FONT}>{value:.2f}</text>'
        )
        step = last * tick / (_TICKS - 1)
        anchor = "end" if tick == _TICKS - 1 else "middle"
        parts.append(
            f'<text x="{x(step):.1f}" y="{bottom + 16}" text-anchor="{anchor}" {_FONT}>{round(step)}</text>'
        )
    parts.append(
        f'<text x="{(_LEFT + right) / 2}" y="{bottom + 32}" text-anchor="middle" {_FONT}>step</text>'
    )
    place = right
    for index, line in reversed(list(enumerate(lines))):
        colour = _COLOURS[index]
        points = " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in zip(steps, line.values, strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(
            f'<text x="{place}" y="{offset + 14}" text-anchor="end" fill="{colour}" {_FONT}>'
            f"{escape(line.name)}</text>"
        )
        place -= 7 * len(line.name) + 14
    return "".join(parts)


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'role="img"><rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _mixed(colour: str, share: float) -> str:
    """Return a colour between white and ``colour``."""
    levels = [round(255 + (int(colour[i : i + 2], 16) - 255) * share) for i in (1, 3, 5)]
    return "#" + "".join(f"{level:02x}" for level in levels)
