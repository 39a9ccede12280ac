"""Scores a network on labelled pictures while it trains: average precision, best threshold, confusions.

`streamer evaluate` gives the figures for publication, with pycocotools; here a score is wanted every few
seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from inference.core.detection_params import DetectionParams
from inference.core.detections import Boxes
from inference.core.overlap import greedy_pairs, pairwise_iou
from inference.models.layout import CONVENTIONS, Layout
from inference.models.model import Family
from inference.postprocess.boxes import Postprocessor
from inference.postprocess.nms import suppress
from streamer.datasets.labelled_set import LabelledPicture
from streamer.training.network import Detector, Exported
from streamer.training.pictures import letterboxed

_IOUS = np.arange(0.5, 1.0, 0.05)
#: Scores below this do not count, as they only add to the tail of the curve.
_LOWEST_SCORE = 0.01
_BATCH = 16
#: Recall at which precision is read, as for COCO.
_RECALLS = np.linspace(0, 1, 101)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Score:
    """The score of a network on some pictures. Classes without objects have NaN, and count in no mean."""

    map50: float
    map50_95: float
    #: Average precision at an IoU of 0.5, by class.
    ap50: tuple[float, ...]
    #: The threshold of scores with the best F1, that F1, and precision and recall there.
    threshold: float
    f1: float
    precision: float
    recall: float

    @property
    def fitness(self) -> float:
        """What training maximises: both means, as one alone is noisy on a few pictures."""
        return 0.5 * (self.map50 + self.map50_95)


@dataclass(frozen=True, slots=True)
class Held:
    """A picture kept for validation: its input (3, side, side) uint8 RGB, and its objects in input pixels."""

    source: LabelledPicture
    planes: npt.NDArray[np.uint8]
    boxes: npt.NDArray[np.float32]


def hold(pictures: Sequence[LabelledPicture], side: int) -> list[Held]:
    """Return the pictures as the service would place them. Raises BadSet."""
    held = []
    for picture in pictures:
        slot, place = letterboxed(picture, side)
        scale = np.array(
            [place.resized_width / picture.width, place.resized_height / picture.height] * 2, np.float32
        )
        offset = np.array([place.left, place.top] * 2, np.float32)
        planes = np.ascontiguousarray(slot[..., ::-1].transpose(2, 0, 1))
        held.append(Held(picture, planes, picture.boxes * scale + offset))
    return held


@torch.no_grad()
def detect(network: Detector, pictures: Sequence[Held], side: int, device: torch.device) -> list[Boxes]:
    """Return the boxes (n, 6) of each picture in input pixels, by the service's own post-processing."""
    layout = Layout(Family.YOLO, ("output0",), network.class_count, CONVENTIONS[Family.YOLO])
    postprocessor = Postprocessor(layout, side, side, network.class_count)
    params = DetectionParams(conf_threshold=_LOWEST_SCORE)
    model = Exported(network, side).to(device).eval()
    found = []
    for start in range(0, len(pictures), _BATCH):
        planes = np.stack([picture.planes for picture in pictures[start : start + _BATCH]])
        images = torch.from_numpy(planes).to(device).float() / 255
        outputs = model(images).float().cpu().numpy()
        found += [suppress(postprocessor.candidates([output], params), params) for output in outputs]
    return found


def score(found: Sequence[Boxes], pictures: Sequence[Held], classes: int) -> Score:
    """Return the score of the boxes that were found in the pictures."""
    ap = np.full((classes, len(_IOUS)), np.nan)
    curves = []
    for class_id in range(classes):
        scores, hits, truths = _matches(found, pictures, class_id)
        if truths:
            ap[class_id] = [_average_precision(hits[:, level], truths) for level in range(len(_IOUS))]
        curves.append((scores, hits[:, 0], truths))
    known = ~np.isnan(ap[:, 0])
    threshold, precision, recall = _best_threshold(curves)
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return Score(
        map50=float(ap[known, 0].mean()) if known.any() else 0.0,
        map50_95=float(ap[known].mean()) if known.any() else 0.0,
        ap50=tuple(float(value) for value in ap[:, 0]),
        threshold=threshold,
        f1=f1,
        precision=precision,
        recall=recall,
    )


def confusion(
    found: Sequence[Boxes], pictures: Sequence[Held], classes: int, threshold: float
) -> npt.NDArray[np.int64]:
    """Return counts (classes + 1, classes + 1) of true by found class; the last row and column is none."""
    counts = np.zeros((classes + 1, classes + 1), np.int64)
    for boxes, picture in zip(found, pictures, strict=True):
        kept = boxes[boxes[:, 4] >= threshold]
        pairs = greedy_pairs(pairwise_iou(picture.boxes, kept), 0.5)
        for truth, box in pairs:
            counts[picture.source.classes[truth], int(kept[box, 5])] += 1
        for truth in set(range(len(picture.boxes))) - {truth for truth, _ in pairs}:
            counts[picture.source.classes[truth], classes] += 1
        for box in set(range(len(kept))) - {box for _, box in pairs}:
            counts[classes, int(kept[box, 5])] += 1
    return counts


def errors(boxes: Boxes, picture: Held, threshold: float) -> tuple[int, int]:
    """Return how many objects of a picture are missed, and how many boxes are false, at a threshold."""
    kept = boxes[boxes[:, 4] >= threshold]
    same = picture.source.classes[:, None] == kept[None, :, 5]
    pairs = greedy_pairs(np.where(same, pairwise_iou(picture.boxes, kept), 0), 0.5)
    return len(picture.boxes) - len(pairs), len(kept) - len(pairs)


def _matches(
    found: Sequence[Boxes], pictures: Sequence[Held], class_id: int
) -> tuple[Floats, npt.NDArray[np.bool_], int]:
    """Return scores (n,) of a class's boxes, best first, hits at each IoU (n, 10), and number of objects."""
    scores, hits, truths = [], [], 0
    for boxes, picture in zip(found, pictures, strict=True):
        mine = boxes[boxes[:, 5] == class_id]
        wanted = picture.boxes[picture.source.classes == class_id]
        truths += len(wanted)
        overlap = pairwise_iou(mine, wanted)
        hit = np.zeros((len(mine), len(_IOUS)), np.bool_)
        for level, least in enumerate(_IOUS):
            free = np.ones(len(wanted), np.bool_)
            for row in range(len(mine)):  # best first
                values = np.where(free, overlap[row], 0)
                if len(values) and values.max() >= least:
                    free[values.argmax()] = False
                    hit[row, level] = True
        scores.append(mine[:, 4].astype(np.float64))
        hits.append(hit)
    joined = np.concatenate(scores) if scores else np.zeros(0)
    order = np.argsort(-joined, kind="stable")
    return joined[order], np.concatenate(hits)[order] if hits else np.zeros((0, len(_IOUS)), np.bool_), truths


def _average_precision(hits: npt.NDArray[np.bool_], truths: int) -> float:
    """Return the mean precision at 101 recalls, as COCO defines it."""
    if not len(hits):
        return 0.0
    right = np.cumsum(hits)
    recall = right / truths
    precision = np.maximum.accumulate((right / np.arange(1, len(hits) + 1))[::-1])[::-1]
    at = np.searchsorted(recall, _RECALLS, side="left")
    return float(np.where(at < len(precision), precision[np.minimum(at, len(precision) - 1)], 0).mean())


def _best_threshold(
    curves: Sequence[tuple[Floats, npt.NDArray[np.bool_], int]],
) -> tuple[float, float, float]:
    """Return the threshold with the best F1 over all classes, and precision and recall there."""
    scores = np.concatenate([scores for scores, _, _ in curves])
    hits = np.concatenate([hits for _, hits, _ in curves])
    truths = sum(truths for _, _, truths in curves)
    if not len(scores) or not truths or not hits.any():
        return 0.25, 0.0, 0.0
    order = np.argsort(-scores, kind="stable")
    right = np.cumsum(hits[order])
    precision, recall = right / np.arange(1, len(order) + 1), right / truths
    best = int((2 * right / (np.arange(1, len(order) + 1) + truths)).argmax())
    # Halfway to the next lower score, so that rounding does not decide.
    ranked = scores[order]
    below = ranked[best + 1] if best + 1 < len(ranked) else 0.0
    threshold = float(np.clip((ranked[best] + below) / 2, 0.05, 0.9))
    return threshold, float(precision[best]), float(recall[best])
