"""Decides whether the class ids that a model outputs begin at 0 or at 1.

Most exporters number classes from 0. Models with a class for the background (SSD, TensorFlow's detection
API) number the others from 1. Outputs do not say which, and the wrong one gives every box the name of its
neighbour in the list. `labels` knows where the names come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inference.core.errors import ModelRefused
from inference.models.class_names import COCO_91, parse_names
from inference.models.labels import check_ids, choose_labels
from inference.models.layout import Layout
from inference.models.manifest import Manifest, manifest_path

#: A class that no training image showed scores less than this, so such a row does not show that it exists.
_SHOWN_SCORE = 0.01
#: First names by which users show that they count the background as class 0.
_BACKGROUND = ("background", "__background__", "bg", "_background_", "no object", "none", "unused", "n/a")
#: Beginning of the names of the outputs of YOLO-NAS; its exporter numbers classes from 0.
_SUPER_GRADIENTS = "graph2_"


def name_classes(
    path: str,
    manifest: Manifest,
    metadata: Mapping[str, str],
    layout: Layout,
    outputs: Mapping[str, npt.NDArray[Any]],
) -> tuple[tuple[str, ...], int]:
    """Return one name per class, and the id of the first class: 0 or 1.

    ``outputs`` are those of the validation run. Raises ModelRefused when the names do not fit them, or when
    it stays unknown which id a name belongs to.
    """
    first = _first_class_id(path, manifest, metadata, layout, outputs)
    count, by_id = layout.class_count, layout.coco_ids
    labels = choose_labels(path, manifest, metadata, count, coco_ids=by_id, first_id=first)
    if (rows := layout.class_rows(outputs)) is not None:
        check_ids(path, rows[2], labels, first)
    return labels, first


def _first_class_id(
    path: str,
    manifest: Manifest,
    metadata: Mapping[str, str],
    layout: Layout,
    outputs: Mapping[str, npt.NDArray[Any]],
) -> int:
    """Return the id of the class that has the first name: 0 or 1.

    Names in the metadata say which id they belong to. Without any
    names, classes are called by their ids, which is right in both cases. For names in the manifest, the run
    must show which it is, or the manifest must say it. Raises ModelRefused when it stays unknown, or when the
    run contradicts the manifest.
    """
    rows = layout.class_rows(outputs)
    given = manifest.first_class_id
    if rows is None:
        if given:
            raise ModelRefused(
                path,
                expected="no `first_class_id` in the manifest, because each class has a column of its own",
                found=f"`first_class_id` {given}",
                fix="Remove it. If the first column is a background, give it a label, too.",
            )
        return 0
    best = _best_scores(*rows)
    if given is not None:
        if given and best.get(0, 0) >= _SHOWN_SCORE:
            raise ModelRefused(
                path,
                expected="class ids from 1, as `first_class_id` in the manifest says",
                found=f"class id 0 with a score of {best[0]:.2f} in a validation run",
                fix='Set "first_class_id": 0, and give exactly one label per class.',
            )
        return given
    names = manifest.labels
    if names is None or _are_from_zero(names, metadata, outputs) or best.get(0, 0) >= _SHOWN_SCORE:
        return 0
    highest = max(best, default=None)
    if highest is not None and highest > len(names):
        return 0  # neither reading fits; `check_ids` says so
    raise _unknown(path, names, sorted(best), highest)


def _are_from_zero(
    names: tuple[str, ...], metadata: Mapping[str, str], outputs: Mapping[str, npt.NDArray[Any]]
) -> bool:
    """Return whether anything besides the ids of a run says that they begin at 0."""
    if names == COCO_91 or names[0].strip().lower() in _BACKGROUND or names[0] == "class_0":
        return True
    if parse_names(metadata.get("names", "")) or metadata.get("end2end") == "True":
        return True  # Ultralytics, YOLOv5 and YOLOv9 write it
    return any(name.startswith(_SUPER_GRADIENTS) for name in outputs)


def _best_scores(
    boxes: npt.NDArray[Any], scores: npt.NDArray[Any], ids: npt.NDArray[Any]
) -> dict[int, float]:
    """Return the best score of each class id in the rows (N, 4), (N,), (N,) that are no padding."""
    used = boxes.any(axis=1) & (scores > 0) & (ids >= 0) & np.isfinite(scores)
    numbers = ids[used].astype(np.int64)
    return {int(number): float(scores[used][numbers == number].max()) for number in np.unique(numbers)}


def _unknown(path: str, names: tuple[str, ...], ids: list[int], highest: int | None) -> ModelRefused:
    count, first = len(names), names[0][:40]
    if highest is None:
        seen = "no object"
    else:
        listed = ", ".join(map(str, ids[:10])) + (", …" if len(ids) > 10 else "")
        seen = f"only the class ids {listed}" if len(ids) > 1 else f"only the class id {listed}"
    from_zero = f'ids from 0 to {count - 1} ("{first}" is 0)'
    if highest == count:
        from_zero = f"ids from 0 that lack a label (0 to {count} need {count + 1})"
    field = manifest_path(Path(path)).name
    return ModelRefused(
        path,
        expected="class ids of which a validation run, or the manifest, shows where they begin",
        found=f"{seen} for {count} `labels`, which may be {from_zero}, or ids from 1 to {count} "
        f'("{first}" is 1), as in models with a background class',
        fix=f'Set "first_class_id": 0 or "first_class_id": 1 in {field}, whichever is right'
        + (", and for 0 also the missing label." if highest == count else "."),
    )
