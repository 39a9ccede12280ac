"""Decides which grid cells predict which object, by task-aligned assignment.

It implements the method of Feng et al. 2021 (arXiv:2108.07755).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: Exponents of score and overlap in the alignment, and cells per object. YOLOv8 and YOLOv9 use the same
#: values.
_ALPHA, _BETA, _TOP = 0.5, 6.0, 10
_EPSILON = 1e-9


@dataclass(frozen=True, slots=True)
class Targets:
    """Target outputs per cell of n images: boxes (n, cells, 4) in pixels, scores (n, cells, classes).

    ``positive`` (n, cells) marks the cells that predict a box. ``counted`` (n, cells) marks the cells whose
    scores count in the loss.
    """

    boxes: Tensor
    scores: Tensor
    positive: Tensor
    counted: Tensor


def overlaps(first: Tensor, second: Tensor) -> Tensor:
    """Return the IoU of boxes (..., 4), broadcast."""
    near = torch.maximum(first[..., :2], second[..., :2])
    far = torch.minimum(first[..., 2:], second[..., 2:])
    common = (far - near).clamp(min=0).prod(-1)
    areas = (first[..., 2:] - first[..., :2]).prod(-1) + (second[..., 2:] - second[..., :2]).prod(-1)
    return common / (areas - common + _EPSILON)


@torch.no_grad()
def assign(
    scores: Tensor, boxes: Tensor, middles: Tensor, strides: Tensor, class_ids: Tensor, wanted: Tensor
) -> Targets:
    """Match predictions with objects.

    ``scores`` (n, cells, classes) in 0..1 and ``boxes`` (n, cells, 4) are the predictions of the network.
    The ground truth is ``class_ids`` (n, objects), where -1 means "ignore" and -2 means "only padding", and
    ``wanted`` (n, objects, 4).
    """
    real = class_ids >= 0
    n, cells, _ = scores.shape
    objects = class_ids.shape[1]
    near, far = wanted[:, :, None, :2], wanted[:, :, None, 2:]
    # An object smaller than a cell may contain no cell centre, so every object counts as at least 1.25 cells
    # wide and high.
    half = torch.maximum((far - near) / 2, strides * 0.625)
    away = (middles - (near + far) / 2).abs()
    inside = (away < half).all(-1) & real[..., None]
    own = scores.gather(2, class_ids.clamp(min=0)[:, None].expand(n, cells, objects)).transpose(1, 2)
    iou = overlaps(wanted[:, :, None], boxes[:, None])
    aligned = own.pow(_ALPHA) * iou.pow(_BETA) * inside
    # At the start of training, no prediction overlaps an object. The small second term then selects the
    # nearest cells.
    rank = (aligned + 1e-7 / (1 + away.sum(-1))) * inside
    best = rank.topk(min(_TOP, cells), dim=-1)
    chosen = torch.zeros_like(inside).scatter_(-1, best.indices, best.values > 0)
    # A cell that several objects have selected goes to the object that its predicted box overlaps most.
    contested = chosen.sum(1, keepdim=True) > 1
    winner = (iou * chosen + chosen * _EPSILON).argmax(1, keepdim=True)
    only = torch.zeros_like(chosen).scatter_(1, winner, True)
    chosen = torch.where(contested, only & chosen, chosen)
    positive = chosen.any(1)
    which = chosen.float().argmax(1)
    target_boxes = wanted.gather(1, which[..., None].expand(n, cells, 4))
    target_ids = class_ids.gather(1, which).clamp(min=0)
    # The target score of a cell is its alignment, scaled so that the target of an object's best-aligned cell
    # equals the object's highest overlap.
    aligned = aligned * chosen
    top = aligned.amax(-1, keepdim=True)
    top_iou = (iou * chosen).amax(-1, keepdim=True)
    strength = (aligned / (top + _EPSILON) * top_iou).amax(1)
    target_scores = torch.zeros_like(scores)
    target_scores.scatter_(2, target_ids[..., None], (strength * positive)[..., None])
    ignored = (away < (far - near) / 2).all(-1) & (class_ids == -1)[..., None]
    return Targets(target_boxes, target_scores, positive, positive | ~ignored.any(1))
