"""Chooses the pictures with the most errors of a model and draws objects and boxes on them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from streamer.datasets.labelled_set import LabelledPicture
from streamer.datasets.sample import CannotRead
from streamer.datasets.upright import upright_pixels
from streamer.evaluation.model_score import ModelScore
from streamer.imaging.draw import draw_box
from streamer.imaging.palette import score_text

#: At most this many pictures are shown.
MOST_PICTURES = 24
#: Limits of the longer side of a shown picture. On smaller ones, texts would hide what they name.
_LEAST_PX, _MOST_PX = 320, 640
_QUALITY = 80
#: Colour (BGR, light enough for dark letters on it) and dash.
_FOUND = ((90, 220, 60), ())
_MISSED = ((0, 170, 255), (10, 5))
_FALSE = ((110, 110, 255), ())


@dataclass(frozen=True, slots=True)
class WorstPicture:
    """A picture with its objects and boxes drawn, as a data URI; size in pixels."""

    data_uri: str
    width: int
    height: int
    caption: str


def worst_pictures(pictures: Sequence[LabelledPicture], score: ModelScore) -> list[WorstPicture]:
    """Return the pictures with errors, those with most errors first. Raises CannotRead or DamagedSample.

    Of pictures with equally many errors, the one whose false boxes have higher scores comes first.
    """
    point = score.point

    def badness(index: int) -> tuple[int, float]:
        kept = _kept(score, index)
        return len(point.errors[index]), float(kept[list(point.errors[index].false), 4].sum())

    order = sorted((i for i in range(len(pictures)) if len(point.errors[i])), key=badness, reverse=True)
    return [_drawn(pictures[index], score, index) for index in order[:MOST_PICTURES]]


def _kept(score: ModelScore, index: int) -> npt.NDArray[np.float32]:
    boxes = score.detections[index].boxes
    return boxes[boxes[:, 4] >= score.point.threshold]


def _drawn(picture: LabelledPicture, score: ModelScore, index: int) -> WorstPicture:
    try:
        image = upright_pixels(picture.path.read_bytes(), str(picture.path))
    except OSError as error:
        raise CannotRead(f"{picture.path}: {error.strerror or error}") from error
    longest = max(image.shape[:2])
    scale = min(max(longest, _LEAST_PX), _MOST_PX) / longest
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    canvas = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    errors, kept = score.point.errors[index], _kept(score, index)
    for number, box in enumerate(picture.boxes * scale):
        is_missed = number in errors.missed
        name = score.classes[int(picture.classes[number])] if is_missed else ""
        draw_box(canvas, box.tolist(), name, *(_MISSED if is_missed else _FOUND))
    for number in errors.false:
        row = kept[number]
        text = f"{score.classes[int(row[5])]} {score_text(float(row[4]))}"
        draw_box(canvas, (row[:4] * scale).tolist(), text, *_FALSE)
    data = cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
    caption = f"{picture.id[:12]}: {len(errors.missed)} missed, {len(errors.false)} false"
    return WorstPicture("data:image/jpeg;base64," + base64.b64encode(data).decode(), *size, caption)
