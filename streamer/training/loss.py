"""Computes the loss that training minimises: errors of the scores and of the boxes."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from streamer.training.assigner import assign, overlaps
from streamer.training.network import corners

_SCORE_WEIGHT, _BOX_WEIGHT = 0.5, 5.0
_EPSILON = 1e-7


def ciou(first: Tensor, second: Tensor) -> Tensor:
    """Return the complete IoU of boxes (n, 4) pair by pair (Zheng et al. 2020, arXiv:2005.03572)."""
    iou = overlaps(first, second)
    size, other = first[:, 2:] - first[:, :2], second[:, 2:] - second[:, :2]
    hull = torch.maximum(first[:, 2:], second[:, 2:]) - torch.minimum(first[:, :2], second[:, :2])
    between = (first[:, :2] + first[:, 2:] - second[:, :2] - second[:, 2:]).pow(2).sum(-1) / 4
    lean = torch.atan(other[:, 0] / (other[:, 1] + _EPSILON)) - torch.atan(
        size[:, 0] / (size[:, 1] + _EPSILON)
    )
    shape = 4 / math.pi**2 * lean.pow(2)
    with torch.no_grad():
        weight = shape / (1 - iou + shape + _EPSILON)
    return iou - between / (hull.pow(2).sum(-1) + _EPSILON) - weight * shape


def detection_loss(
    logits: Tensor, distances: Tensor, middles: Tensor, strides: Tensor, class_ids: Tensor, wanted: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the losses of scores and boxes; see `network.Detector` and `assigner.assign` for arguments."""
    logits, distances = logits.float(), distances.float()
    boxes = corners(distances, middles, strides)
    # Most of the rows are padding. Cut off those that no image uses, because the cost of the assignment grows
    # with the number of rows.
    objects = max(1, int((class_ids > -2).sum(1).max()))
    class_ids, wanted = class_ids[:, :objects], wanted[:, :objects]
    targets = assign(logits.detach().sigmoid(), boxes.detach(), middles, strides, class_ids, wanted)
    total = targets.scores.sum().clamp(min=1)
    score_loss = binary_cross_entropy_with_logits(logits, targets.scores, reduction="none")
    score_loss = (score_loss * targets.counted[..., None]).sum() / total
    positive = targets.positive
    weight = targets.scores.sum(-1)[positive]
    box_loss = ((1 - ciou(boxes[positive], targets.boxes[positive])) * weight).sum() / total
    return score_loss * _SCORE_WEIGHT, box_loss * _BOX_WEIGHT
