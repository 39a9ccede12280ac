"""Computes the intersection over union (IoU) of boxes, and matches two sets of boxes greedily, without I/O.

All code of the project uses this IoU, with two exceptions. `postprocess.nms` uses OpenCV, which suppresses a
thousand boxes in a fifth of the time that NumPy takes to compute the table of their IoUs. The training code
uses PyTorch, because it needs gradients.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from inference.core.detections import Boxes

_Floats = npt.NDArray[np.floating[Any]]


def iou(first_low: _Floats, first_high: _Floats, second_low: _Floats, second_high: _Floats) -> _Floats:
    """Return the IoU of boxes given by their lower and upper corners (..., 2), which are broadcast.

    The IoU is 0 where neither box has an area. The result has the type of the corners.
    """
    sides = np.minimum(first_high, second_high) - np.maximum(first_low, second_low)
    shared = _area(np.maximum(sides, 0))
    union = _area(first_high - first_low) + _area(second_high - second_low) - shared
    result: _Floats = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return result


def pairwise_iou(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> _Floats:
    """Return the IoU of each box of ``first`` with each of ``second``, as an (N, M) array.

    The first four columns of both are x1, y1, x2, y2. All other columns, such as the class, are ignored.
    """
    return iou(first[:, None, :2], first[:, None, 2:4], second[None, :, :2], second[None, :, 2:4])


def same_class_iou(first: Boxes, second: Boxes) -> _Floats:
    """Return the IoU of each box of ``first`` with each of ``second``, (N, M); 0 where the classes differ."""
    return np.where(first[:, None, 5] == second[None, :, 5], pairwise_iou(first, second), np.float32(0))


def greedy_pairs(overlap: _Floats, least: float) -> list[tuple[int, int]]:
    """Return pairs of row and column of the table ``overlap``, largest first, each row and column once.

    Cells below ``least`` are ignored. Among equal cells, the upper row comes first, then the left column.
    """
    rows, columns = np.nonzero(overlap >= least)
    order = np.argsort(-overlap[rows, columns], kind="stable")
    pairs: list[tuple[int, int]] = []
    used_rows: set[int] = set()
    used_columns: set[int] = set()
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if row not in used_rows and column not in used_columns:
            used_rows.add(row)
            used_columns.add(column)
            pairs.append((row, column))
    return pairs


def match(first: Boxes, second: Boxes, least: float) -> list[tuple[int, int, float]]:
    """Return pairs of indices and their IoU: same class, IoU of at least ``least``, highest first."""
    table = same_class_iou(first, second)
    return [(row, column, float(table[row, column])) for row, column in greedy_pairs(table, least)]


def _area(sides: _Floats) -> _Floats:
    """Return width times height of (..., 2)."""
    # `prod` over an axis of two takes several times as long.
    result: _Floats = sides[..., 0] * sides[..., 1]
    return result
