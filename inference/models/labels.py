"""Chooses the class names of a model, from its manifest, its metadata, or the lists in `class_names`."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

import numpy.typing as npt

from inference.core.errors import ModelRefused
from inference.models.class_names import COCO_80, COCO_91, number_apart, parse_names
from inference.models.manifest import Manifest
from inference.models.model import ModelInfo

log = logging.getLogger(__name__)

#: Number of labels that a message lists.
_SHOWN_LABELS = 10
#: Number of names for a model that outputs class ids without saying how many classes there are.
UNKNOWN_COUNT = 400


def given_names(manifest: Manifest, metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names in the manifest, or else those in the metadata, unchanged; empty if there are none."""
    return manifest.labels or parse_names(metadata.get("names", ""))


def choose_labels(
    path: str,
    manifest: Manifest,
    metadata: Mapping[str, str],
    class_count: int | None,
    *,
    coco_ids: bool = False,
    first_id: int = 0,
) -> tuple[str, ...]:
    """Return one name per class, all different; ``class_count`` is None when the outputs do not show it.

    ``coco_ids``: the classes are the category ids of COCO. ``first_id``: id of the first class.
    Raises ModelRefused when the number of given names differs from the number of classes in the outputs.
    """
    if names := given_names(manifest, metadata):
        if class_count is not None and len(names) != class_count:
            where = "its manifest's `labels`" if manifest.labels else "its metadata's `names`"
            raise ModelRefused(
                path,
                expected=f"outputs for the {len(names)} classes of {where}",
                found=f"outputs for {class_count} classes",
                fix="Give exactly one label per class in the manifest. Models for masks or keypoints have "
                "more outputs: train or choose one for detection.",
            )
        return number_apart(names)
    if coco_ids and class_count == len(COCO_91):
        return COCO_91
    if class_count == len(COCO_80) and not metadata.get("names", "").strip():
        return COCO_80  # names that cannot be read show that the file has some, perhaps of other classes
    count = UNKNOWN_COUNT if class_count is None else class_count
    return tuple(f"class_{first_id + index}" for index in range(count))


def choose_code_classes(path: str, manifest: Manifest, labels: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the labels of codes that the manifest states, or None.

    Raises ModelRefused when one of them is no label of the model.
    """
    unknown = [name for name in manifest.code_classes or () if name not in labels]
    if unknown:
        raise ModelRefused(
            path,
            expected=f"the manifest's `code_classes` to be labels of the model, which are {_some_of(labels)}",
            found=f"`{unknown[0][:60]}`",
            fix="Write the labels as the model has them, or remove the field.",
        )
    return manifest.code_classes


def check_code_classes(
    models: Mapping[str, ModelInfo], wanted: Collection[str], *, given: bool, restarted: bool
) -> None:
    """Check the labels (in lower case) that `READ_CODES_CLASSES` names against those of all served models.

    If they are ``given`` by the operator, raises ModelRefused when one of them is no label of any model. A
    ``restarted`` process serves perhaps a newer file and only warns. The default is meant for the bundled
    models; a warning says when it fits no class.
    """
    known = {label.lower() for model in models.values() for label in model.labels}
    unknown = [name for name in wanted if name not in known]
    stated = any(model.code_classes for model in models.values())
    if not unknown or (not given and (stated or len(unknown) < len(wanted))):
        return
    expected = "labels of served models, which are " + "; ".join(
        f"{version}: {_some_of(model.labels)}" for version, model in models.items()
    )
    if given and not restarted:
        raise ModelRefused(
            "READ_CODES_CLASSES",
            expected=expected,
            found=", ".join(f"`{name[:60]}`" for name in unknown),
            fix="Write the labels as the models have them, or name the classes in `code_classes` of a "
            "manifest.",
        )
    log.warning(
        "READ_CODES=1 reads no codes of these classes: %s. READ_CODES_CLASSES takes %s",
        ", ".join(unknown),
        expected,
    )


def _some_of(labels: tuple[str, ...]) -> str:
    return ", ".join(labels[:_SHOWN_LABELS]) + (", …" if len(labels) > _SHOWN_LABELS else "")


def check_ids(path: str, ids: npt.NDArray[Any], labels: tuple[str, ...], first_id: int = 0) -> None:
    """Raise ModelRefused when a model has output a class id without a label; the first has ``first_id``."""
    highest, last = int(ids.max(initial=0)), first_id + len(labels) - 1
    if highest > last:
        raise ModelRefused(
            path,
            expected=f"class ids {first_id} to {last}, one for each label",
            found=f"class id {highest}",
            fix="Give exactly one label per class in the manifest's `labels`"
            + (', or set "first_class_id": 1 if the ids begin at 1.' if highest == len(labels) else "."),
        )
