"""Chooses the class names of a model: from its manifest, its metadata, or COCO."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from inference.core.errors import ModelRefused
from inference.models.manifest import MAX_BYTES, Manifest

#: Class names of the COCO data set, for public models without names. Category id to name, as the data set
#: numbers them: 80 of the ids 1 to 90.
_CATEGORIES = """
1 person|2 bicycle|3 car|4 motorcycle|5 airplane|6 bus|7 train|8 truck|9 boat|10 traffic light
11 fire hydrant|13 stop sign|14 parking meter|15 bench|16 bird|17 cat|18 dog|19 horse|20 sheep|21 cow
22 elephant|23 bear|24 zebra|25 giraffe|27 backpack|28 umbrella|31 handbag|32 tie|33 suitcase|34 frisbee
35 skis|36 snowboard|37 sports ball|38 kite|39 baseball bat|40 baseball glove|41 skateboard|42 surfboard
43 tennis racket|44 bottle|46 wine glass|47 cup|48 fork|49 knife|50 spoon|51 bowl|52 banana|53 apple
54 sandwich|55 orange|56 broccoli|57 carrot|58 hot dog|59 pizza|60 donut|61 cake|62 chair|63 couch
64 potted plant|65 bed|67 dining table|70 toilet|72 tv|73 laptop|74 mouse|75 remote|76 keyboard
77 cell phone|78 microwave|79 oven|80 toaster|81 sink|82 refrigerator|84 book|85 clock|86 vase|87 scissors
88 teddy bear|89 hair drier|90 toothbrush
"""

_NAME_OF = {
    int(number): name
    for entry in _CATEGORIES.strip().replace("\n", "|").split("|")
    for number, _, name in [entry.partition(" ")]
}

#: Names by the index without gaps that most detectors use.
COCO_80 = tuple(_NAME_OF.values())

#: Names by the category id of the data set, which DETR and RF-DETR use. Ids without a category get a number.
COCO_91 = tuple(_NAME_OF.get(index, f"class_{index}") for index in range(91))

#: Number of names for a model that outputs class ids without saying how many classes there are.
UNKNOWN_COUNT = 400


def choose_labels(
    path: str, manifest: Manifest, metadata: Mapping[str, str], class_count: int | None
) -> tuple[str, ...]:
    """Return one name per class; ``class_count`` is None when the outputs do not show it.

    Raises ModelRefused when the number of given names differs from the number of classes in the outputs.
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
    """Raise ModelRefused when a model has output a class id without a label."""
    highest = int(ids.max(initial=0))
    if highest >= len(labels):
        raise ModelRefused(
            path,
            expected=f"class ids 0 to {len(labels) - 1}, one for each label",
            found=f"class id {highest}",
            fix="Give exactly one label per class in the manifest's `labels`.",
        )


def parse_names(text: str) -> tuple[str, ...]:
    """Parse ``{0: 'cat', 1: 'dog'}`` or ``['cat', 'dog']`` as Python writes it; empty for other text."""
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
