"""How much boxes overlap: intersection over union of two sets, and their greedy matching. Pure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from inference import Boxes


def overlap(first: Boxes, second: Boxes) -> npt.NDArray[np.float32]:
    """Return IoU as float32 (N, M); 0 for boxes of different classes. Both are (N, 6) with xyxy in pixels."""
    top_left = np.maximum(first[:, None, :2], second[None, :, :2])
    bottom_right = np.minimum(first[:, None, 2:4], second[None, :, 2:4])
    shared = np.prod(np.maximum(bottom_right - top_left, 0), axis=2)
    union = _area(first)[:, None] + _area(second)[None] - shared
    same = first[:, None, 5] == second[None, :, 5]
    result: npt.NDArray[np.float32] = np.where(same & (union > 0), shared / np.maximum(union, 1e-9), 0.0)
    return result.astype(np.float32)


def match(first: Boxes, second: Boxes, least: float) -> list[tuple[int, int, float]]:
    """Return pairs of indices and their IoU, highest IoU first, each box once, all at least ``least``."""
    table = overlap(first, second)
    pairs: list[tuple[int, int, float]] = []
    used_first: set[int] = set()
    used_second: set[int] = set()
    rows, columns = np.nonzero(table >= least)
    for index in np.argsort(-table[rows, columns], kind="stable"):
        row, column = int(rows[index]), int(columns[index])
        if row not in used_first and column not in used_second:
            used_first.add(row)
            used_second.add(column)
            pairs.append((row, column, float(table[row, column])))
    return pairs


def _area(boxes: Boxes) -> npt.NDArray[np.float32]:
    sizes: npt.NDArray[np.float32] = np.maximum(boxes[:, 2:4] - boxes[:, :2], 0)
    return sizes[:, 0] * sizes[:, 1]
