"""Boxes that come and go over three consecutive frames: most of them are mistakes. Pure."""

from __future__ import annotations

from inference.core.detections import Boxes
from inference.core.overlap import match

#: The same object in the next frame, half a second later at most.
LEAST_IOU = 0.3


def flicker(before: Boxes, middle: Boxes, after: Boxes) -> float:
    """Return ``(blips + gaps) / tracks``, in [0, 1]; all boxes over the caller's threshold.

    A blip is only in the middle frame; a gap is in both neighbours and not in the middle. Tracks are the
    objects in the three frames, each counted once. Isolated detections are mostly hard negatives
    (Jin et al., ECCV 2018, arXiv 1808.04285).
    """
    to_before = {m for m, _, _ in match(middle, before, LEAST_IOU)}
    seen_before = {b for _, b, _ in match(middle, before, LEAST_IOU)}
    to_after = {m for m, _, _ in match(middle, after, LEAST_IOU)}
    seen_after = {a for _, a, _ in match(middle, after, LEAST_IOU)}
    blips = len(set(range(len(middle))) - to_before - to_after)
    lost = [index for index in range(len(before)) if index not in seen_before]
    found = [index for index in range(len(after)) if index not in seen_after]
    gaps = len(match(before[lost], after[found], LEAST_IOU))
    tracks = len(middle) + len(lost) + len(found) - gaps
    return (blips + gaps) / max(1, tracks)
