"""Finds near-duplicates: pictures that show almost the same, which must not be in different parts.

Two pictures are near-duplicates if the whole pictures look alike and the objects in them do, too: a fixed
camera sees the same background behind different objects, and those are different pictures. Objects look alike
if boxes at the same places do, or if the pixels do wherever one of the pictures has a box (`box_places`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from inference.core.overlap import greedy_pairs, pairwise_iou
from streamer.datasets.box_places import BoxPlaces, Thumbnail, thumbnail

#: Sides of the reduced pictures that are compared. A shift by a fiftieth of the width hardly changes them.
_FRAME_SIDE, _CROP_SIDE = 16, 12
#: Least correlation of two reduced pictures or crops that look alike. Copies of one photograph that were
#: compressed again, resized, brightened or cut by 2 % reach .97 and more; the tests of this file have such
#: copies, and pictures that must not match.
_FRAME_LIKENESS, _CROP_LIKENESS = 0.95, 0.9
#: Standard deviation in grey levels below which a reduced picture counts as plain: what is left is noise.
_PLAIN = 3.0
#: Plain pictures, and the colours of crops, are alike if their means differ by at most this many grey levels.
_SAME_LEVEL = 20.0
#: Least IoU of two boxes, in parts of the picture, that show the same object.
_SAME_PLACE = 0.5
_ROWS_AT_ONCE = 512

Vector = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What `near_pairs` compares of one picture."""

    #: (257,): the reduced grey picture with mean 0 and length 1, or zeros if it is plain; then its mean.
    frame: Vector
    #: (n, 4): boxes in parts of width and height, largest first.
    boxes: Vector
    #: (n, 147): each box's crop as ``frame`` has the picture, then its mean blue, green and red.
    crops: Vector
    #: (64, 64, 3): the reduced picture.
    small: Thumbnail


def fingerprint(image: npt.NDArray[np.uint8], boxes: npt.NDArray[np.floating]) -> Fingerprint:
    """Return the fingerprint of an upright BGR image (h, w, 3) with boxes (n, 4), xyxy in pixels."""
    height, width = image.shape[:2]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    ordered = boxes[np.argsort(-area, kind="stable")]
    crops = [_crop_vector(image, box) for box in ordered]
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return Fingerprint(
        np.append(_pattern(grey, _FRAME_SIDE), np.float32(grey.mean())),
        (ordered / np.array([width, height] * 2)).astype(np.float32).reshape(-1, 4),
        np.array(crops, np.float32).reshape(-1, _CROP_SIDE * _CROP_SIDE + 3),
        thumbnail(image),
    )


def near_pairs(prints: Sequence[Fingerprint]) -> Iterable[tuple[int, int]]:
    """Return the pairs of indices (i, j), i < j, of near-duplicates.

    Takes memory for 512 rows at a time, and a bit for each pair.
    """
    if not prints:
        return
    patterns = np.stack([entry.frame[:-1] for entry in prints])
    means = np.array([entry.frame[-1] for entry in prints])
    plain = np.logical_not(patterns.any(axis=1, keepdims=True))[:, 0]
    counts = np.array([len(entry.boxes) for entry in prints])
    # Most pictures of a fixed camera look alike; their largest boxes tell nearly all of them apart.
    largest = np.stack([entry.boxes[0] if len(entry.boxes) else np.zeros(4, np.float32) for entry in prints])
    places = BoxPlaces([entry.small for entry in prints], [entry.boxes for entry in prints])
    found = []
    for first in range(0, len(prints), _ROWS_AT_ONCE):
        rows = slice(first, first + _ROWS_AT_ONCE)
        alike = patterns[rows] @ patterns.T >= _FRAME_LIKENESS
        alike |= (plain[rows, None] & plain) & (np.abs(means[rows, None] - means) <= _SAME_LEVEL)
        for row, others in enumerate(alike):
            others[first + row] = False
            places.compare(first + row, np.flatnonzero(others))
        alike &= counts[rows, None] == counts
        alike &= (counts[rows, None] == 0) | (pairwise_iou(largest[rows], largest) >= _SAME_PLACE)
        for row, column in np.argwhere(alike):
            pair = int(row) + first, int(column)
            if pair[0] < pair[1] and _same_objects(prints[pair[0]], prints[pair[1]]):
                found.append(pair)
    yield from found
    known = set(found)
    for picture in range(len(prints)):
        for other in places.mutual(picture).tolist():
            if picture < other and (picture, other) not in known:
                yield picture, other


def clusters(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """Return for each of ``count`` items the smallest index that is connected with it by pairs."""
    parent = list(range(count))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for first, second in pairs:
        low, high = sorted((root(first), root(second)))
        parent[high] = low
    return [root(item) for item in range(count)]


def _same_objects(first: Fingerprint, second: Fingerprint) -> bool:
    """Return whether each box has a counterpart at the same place that looks alike."""
    if not len(first.boxes):
        return True
    places = greedy_pairs(pairwise_iou(first.boxes, second.boxes), _SAME_PLACE)
    return len(places) == len(first.boxes) and all(
        _crops_alike(first.crops[row], second.crops[column]) for row, column in places
    )


def _crops_alike(first: Vector, second: Vector) -> bool:
    patterns, colours = (first[:-3], second[:-3]), np.abs(first[-3:] - second[-3:])
    # A darker copy differs in all three colours alike, so only a difference between them tells two objects
    # apart.
    if np.ptp(first[-3:] - second[-3:]) > _SAME_LEVEL:
        return False
    if not patterns[0].any() and not patterns[1].any():
        return bool(colours.max() <= _SAME_LEVEL)
    return float(patterns[0] @ patterns[1]) >= _CROP_LIKENESS


def _crop_vector(image: npt.NDArray[np.uint8], box: npt.NDArray[np.floating]) -> Vector:
    height, width = image.shape[:2]
    x1, y1 = (int(np.clip(np.floor(box[i]), 0, side - 1)) for i, side in ((0, width), (1, height)))
    x2, y2 = (
        int(np.clip(np.ceil(box[i]), low + 1, side)) for i, low, side in ((2, x1, width), (3, y1, height))
    )
    crop = image[y1:y2, x1:x2]
    grey = cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY)
    pattern = _pattern(grey, _CROP_SIDE)
    return np.concatenate([pattern, crop.mean(axis=(0, 1))]).astype(np.float32)


def _pattern(grey: npt.NDArray[np.uint8], side: int) -> Vector:
    """Return the picture reduced to ``side`` x ``side``, with mean 0 and length 1; zeros if it is plain."""
    small = cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    small -= small.mean()
    if float(small.std()) < _PLAIN:
        return np.zeros(side * side, np.float32)
    result: Vector = small / np.linalg.norm(small)
    return result
