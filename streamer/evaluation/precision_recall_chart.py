"""Draws the curves of precision by recall of a model as SVG."""

from __future__ import annotations

from html import escape

import numpy as np

from streamer.evaluation.coco_score import RECALLS
from streamer.evaluation.model_score import ModelScore

_LEFT, _TOP, _SIDE, _ROW = 42, 10, 260, 18
#: Colours that differ in lightness, too (Okabe and Ito); further classes repeat them with dashes.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999")
_DASHES = ("", "6 3", "2 3")
#: More curves than these could not be told apart; the classes with the most objects are drawn.
MOST_CURVES = len(_COLOURS) * len(_DASHES)


def chart(score: ModelScore) -> str:
    """Return an SVG with one curve for each class that has objects, and a legend with its AP50."""
    known = [i for i in range(len(score.classes)) if not np.isnan(score.coco.precision[i]).any()]
    drawn = sorted(known, key=lambda i: -score.point.objects[i])[:MOST_CURVES]
    height = _TOP + _SIDE + 44 + _ROW * len(drawn)
    parts = [
        f'<svg viewBox="0 0 {_LEFT + _SIDE + 14} {height}" role="img" font-size="12" '
        f'aria-label="precision by recall of {escape(score.name)}">'
    ]
    for step in range(6):
        value = step / 5
        x, y = _LEFT + value * _SIDE, _TOP + (1 - value) * _SIDE
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{_LEFT + _SIDE}" y2="{y:.1f}"/>')
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{_TOP + _SIDE}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.1f}</text>')
        parts.append(f'<text x="{x:.1f}" y="{_TOP + _SIDE + 16}" text-anchor="middle">{value:.1f}</text>')
    middle = _TOP + _SIDE / 2
    parts.append(f'<text x="{_LEFT + _SIDE / 2}" y="{_TOP + _SIDE + 32}" text-anchor="middle">recall</text>')
    parts.append(
        f'<text transform="translate(11 {middle}) rotate(-90)" text-anchor="middle">precision</text>'
    )
    for number, index in enumerate(drawn):
        colour, dash = _COLOURS[number % len(_COLOURS)], _DASHES[number // len(_COLOURS)]
        style = f'stroke="{colour}"' + (f' stroke-dasharray="{dash}"' if dash else "")
        points = " L".join(
            f"{_LEFT + recall * _SIDE:.1f} {_TOP + (1 - precision) * _SIDE:.1f}"
            for recall, precision in zip(RECALLS, score.coco.precision[index], strict=True)
        )
        y = _TOP + _SIDE + 52 + _ROW * number
        parts.append(f'<path d="M{points}" {style}/>')
        parts.append(f'<path d="M{_LEFT} {y - 4} h24" {style}/>')
        label = f"{escape(score.classes[index])}: {score.coco.ap50[index]:.3f}"
        parts.append(f'<text x="{_LEFT + 32}" y="{y}">{label}</text>')
    return "".join([*parts, "</svg>"])
