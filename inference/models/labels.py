"""Class names of a model: from its manifest, its metadata, or COCO; `family` says how many it has."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from inference.core.errors import ModelRefused
from inference.models.coco import COCO_80, COCO_91
from inference.models.manifest import MAX_BYTES, Manifest

#: Names for a model that outputs class ids alone, without any sign of how many there are.
UNKNOWN_COUNT = 400


def choose_labels(
    path: str, manifest: Manifest, metadata: Mapping[str, str], class_count: int | None
) -> tuple[str, ...]:
    """Return one name per class; ``class_count`` None means that the outputs do not tell.

    Raises ModelRefused when the names that were given are not as many as the outputs have classes.
    """
    names = manifest.labels or parse_names(metadata.get("names", ""))
    if names:
        if class_count is not None and len(names) != class_count:
            where = "its manifest's `labels`" if manifest.labels else "its metadata's `names`"
            raise ModelRefused(
                path,
                expected=f"outputs for the {len(names)} classes of {where}",
                found=f"outputs for {class_count} classes",
                fix="Give exactly one label per class in the manifest. Models for masks or keypoints have "
                "more outputs: train or choose one for detection.",
            )
        return names
    if class_count == len(COCO_80):
        return COCO_80
    if class_count == len(COCO_91):
        return COCO_91
    return tuple(f"class_{index}" for index in range(UNKNOWN_COUNT if class_count is None else class_count))


def check_ids(path: str, ids: npt.NDArray[Any], labels: tuple[str, ...]) -> None:
    """Raise ModelRefused when a model that outputs class ids gave one that has no label."""
    highest = int(ids.max(initial=0))
    if highest >= len(labels):
        raise ModelRefused(
            path,
            expected=f"class ids 0 to {len(labels) - 1}, one for each label",
            found=f"class id {highest}",
            fix="Give exactly one label per class in the manifest's `labels`.",
        )


def parse_names(text: str) -> tuple[str, ...]:
    """Parse ``{0: 'cat', 1: 'dog'}`` or ``['cat', 'dog']`` as Python writes it; empty when it is neither."""
    if not text or len(text) > MAX_BYTES:
        return ()
    try:
        names = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return ()
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            return ()
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list | tuple):
        return ()
    return tuple(str(name) for name in names)
