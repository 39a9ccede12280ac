"""Writes the page of a training: figures, curves, confusion matrix, and the worst pictures."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from inference.core.detections import Boxes
from streamer.core.durable import write_durably
from streamer.imaging.draw import draw_box
from streamer.training.history import Row
from streamer.training.plots import confusion_matrix, curves
from streamer.training.validation import Held, Score, confusion, errors

CURVES, CONFUSION, PAGE = "curves.svg", "confusion.svg", "report.html"
_WORST = 24
_SHOWN_PX = 320
#: BGR.
_TRUE, _FOUND = (90, 122, 0), (0, 94, 213)

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 70rem; padding: 1rem; color: #1a1a1a;
  background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; } th, td { padding: .25rem .9rem .25rem 0; text-align: right; }
th:first-child, td:first-child { text-align: left; }
svg { max-width: 100%; height: auto; }
.pictures { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 15rem), 1fr)); }
figure { margin: 0; } figure img { width: 100%; height: auto; display: block; }
figcaption { font-size: .85rem; overflow-wrap: anywhere; }
.true { color: #007a5a; } .found { color: #b84c00; }
.scroll { overflow-x: auto; }
"""


@dataclass(frozen=True, slots=True)
class Judged:
    """What a report shows: the boxes found in the pictures held out, and the scores of all parts."""

    classes: tuple[str, ...]
    pictures: Sequence[Held]
    found: Sequence[Boxes]
    scores: dict[str, Score]
    threshold: float


def write_report(work: Path, title: str, rows: Sequence[Row], judged: Judged, facts: dict[str, Any]) -> None:
    """Write curves, confusion matrix and page into ``work``. Raises OSError."""
    counts = confusion(judged.found, judged.pictures, len(judged.classes), judged.threshold)
    plots = {CURVES: curves(rows), CONFUSION: confusion_matrix(counts, judged.classes)}
    for name, text in plots.items():
        _write(work / name, text)
    _write(work / PAGE, _page(title, plots, judged, facts))


def _write(path: Path, text: str) -> None:
    write_durably(path, text.encode(), path.with_name(f".{path.name}.part"))


def _page(title: str, plots: dict[str, str], judged: Judged, facts: dict[str, Any]) -> str:
    worst = _worst(judged)
    pictures = "".join(_figure(judged, number, missed, false) for number, missed, false in worst)
    if not worst:
        pictures = "<p>No object is missed, and no box is false.</p>"
    listed = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(_fact(value))}</td></tr>" for name, value in facts.items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>"
        f'<div class="scroll">{_scores(judged)}</div>'
        f"<h2>Curves</h2>{plots[CURVES]}"
        f"<h2>Confusions</h2><p>Pictures held out, boxes with a score of {judged.threshold:.2f} or more.</p>"
        f'<div class="scroll">{plots[CONFUSION]}</div>'
        '<h2>Worst pictures</h2><p>Pictures held out with the most errors. <span class="true">Green</span>: '
        'what people drew. <span class="found">Orange</span>: what the model found, with score.</p>'
        f'<div class="pictures">{pictures}</div>'
        f'<h2>This training</h2><div class="scroll"><table>{listed}</table></div></body></html>\n'
    )


def _scores(judged: Judged) -> str:
    parts = "".join(f"<th>{escape(part)}</th>" for part in judged.scores)
    rows = [("mAP50", [score.map50 for score in judged.scores.values()])]
    rows.append(("mAP50-95", [score.map50_95 for score in judged.scores.values()]))
    for index, name in enumerate(judged.classes):
        rows.append((f"AP50 of {name}", [score.ap50[index] for score in judged.scores.values()]))
    rows.append(("precision", [score.precision for score in judged.scores.values()]))
    rows.append(("recall", [score.recall for score in judged.scores.values()]))
    body = "".join(
        f"<tr><td>{escape(name)}</td>{''.join(f'<td>{_shown(value)}</td>' for value in values)}</tr>"
        for name, values in rows
    )
    return f"<table><tr><th></th>{parts}</tr>{body}</table>"


def _fact(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {entry}" for name, entry in value.items())
    return str(value)


def _shown(value: float) -> str:
    return "none" if np.isnan(value) else f"{value:.3f}"


def _worst(judged: Judged) -> list[tuple[int, int, int]]:
    """Return number, misses and false boxes of the pictures with the most errors, worst first."""
    counted = [
        (number, *errors(boxes, picture, judged.threshold))
        for number, (boxes, picture) in enumerate(zip(judged.found, judged.pictures, strict=True))
    ]
    wrong = [entry for entry in counted if entry[1] + entry[2]]
    return sorted(wrong, key=lambda entry: (-(entry[1] + entry[2]), entry[0]))[:_WORST]


def _figure(judged: Judged, number: int, missed: int, false: int) -> str:
    picture = judged.pictures[number]
    data = base64.b64encode(_drawn(judged, number)).decode()
    caption = f"{picture.source.id}: {missed} missed, {false} false"
    return (
        f'<figure><img src="data:image/jpeg;base64,{data}" alt="{escape(caption, quote=True)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _drawn(judged: Judged, number: int) -> bytes:
    """Return the picture as a JPEG, with the true boxes and those that were found."""
    picture = judged.pictures[number]
    image: npt.NDArray[np.uint8] = np.ascontiguousarray(picture.planes.transpose(1, 2, 0)[..., ::-1])
    scale = _SHOWN_PX / image.shape[0]
    image = np.asarray(cv2.resize(image, (_SHOWN_PX, _SHOWN_PX), interpolation=cv2.INTER_AREA), np.uint8)
    for box, class_id in zip(picture.boxes, picture.source.classes, strict=True):
        draw_box(image, (box * scale).tolist(), judged.classes[class_id], _TRUE)
    for row in judged.found[number]:
        if row[4] >= judged.threshold:
            text = f"{judged.classes[int(row[5])]} {row[4]:.2f}"
            draw_box(image, (row[:4] * scale).tolist(), text, _FOUND)
    return bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1])
