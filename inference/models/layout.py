"""Describes a recognised model: the convention of its input, and the layout of its outputs.

`family` recognises the model by a `Probe`, the outputs of a first run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from inference.core.errors import ModelRefused
from inference.models.fields import Triple
from inference.models.manifest import Activation, Colour, Manifest
from inference.models.model import Family, Placement

#: Boxes whose numbers are at most this are fractions of the input, because no head finds only boxes so small
#: and so near the corner that all their numbers are at most 2 pixels.
MAX_FRACTION = 2.0
#: Strides of the grids of common detection heads: the usual one, one with an extra coarse level (P6 models),
#: and one with an extra fine level (P2 models).
STRIDE_SETS = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32))


@dataclass(frozen=True, slots=True)
class Convention:
    """Says how pixels become input: ``(pixel * scale - mean) / std`` per plane, in ``colour`` order."""

    placement: Placement
    pad_value: int
    colour: Colour
    scale: float
    mean: Triple
    std: Triple

    def overridden(self, manifest: Manifest) -> Convention:
        """Return a copy with the values that the manifest sets."""
        given = {
            name: value
            for name in ("placement", "pad_value", "colour", "scale", "mean", "std")
            if (value := getattr(manifest, name)) is not None
        }
        return replace(self, **given)


_ZERO: Triple = (0.0, 0.0, 0.0)
_ONE: Triple = (1.0, 1.0, 1.0)
_RGB_CENTRED = Convention(Placement.CENTRED, 114, Colour.RGB, 1 / 255, _ZERO, _ONE)
_RGB_STRETCHED = Convention(Placement.STRETCH, 114, Colour.RGB, 1 / 255, _ZERO, _ONE)

CONVENTIONS: Mapping[Family, Convention] = {
    Family.YOLO: _RGB_CENTRED,
    Family.YOLO_END2END: _RGB_CENTRED,
    Family.YOLOV5: _RGB_CENTRED,
    Family.YOLOV7_END2END: _RGB_CENTRED,
    Family.YOLOX: Convention(Placement.TOP_LEFT, 114, Colour.BGR, 1.0, _ZERO, _ONE),
    Family.YOLO_NAS: _RGB_CENTRED,
    Family.DETR: _RGB_STRETCHED,
}

#: Columns of score and class id in the form FLAT.
FLAT_SCORE_AND_CLASS: Mapping[Family, tuple[int, int]] = {
    Family.YOLOV7_END2END: (6, 5),
    Family.YOLO_NAS: (5, 6),
}


class OutputForm(StrEnum):
    """Names the forms in which exports of one family output their boxes."""

    #: One output, as the family's row in docs/models.md says.
    TABLE = "one table"
    #: Class id, xyxy box and score per row, in three outputs.
    READY = "labels, boxes, scores"
    #: Class logits and a cx cy w h box in 0..1 per query, in two outputs.
    LOGITS = "logits, boxes"
    #: A cx cy w h box in 0..1 and class scores per query, in one output.
    JOINED = "boxes and class scores in one table"
    #: An xyxy box in pixels and class scores per grid cell, in two outputs.
    SPLIT = "boxes, class scores"
    #: One row per object of the whole batch; the first column is the number of the frame.
    FLAT = "rows of all frames"


@dataclass(frozen=True, slots=True)
class Layout:
    """Says which outputs of a recognised model `Postprocessor` reads, in which order, and how."""

    family: Family
    outputs: tuple[str, ...]
    #: Number of classes; None if the outputs do not show it. Columns of logits beyond it are not classes.
    class_count: int | None
    convention: Convention
    #: Grid strides of a yolox head; empty for other families, whose boxes are in pixels.
    strides: tuple[int, ...] = ()
    form: OutputForm = OutputForm.TABLE
    activation: Activation = Activation.SIGMOID
    #: Whether boxes are in 0..1 instead of input pixels; None if the probe run found no box, so that the
    #: boxes of each frame show it. Boxes of the forms LOGITS and JOINED always are, whatever is set here.
    normalised: bool | None = False
    #: Whether a yolo table has a row for each grid cell, and not a column.
    transposed: bool = False
    #: Whether the classes are the category ids of COCO, so that the names are known.
    coco_ids: bool = False
    #: Describes this reading in messages, where the same shapes could also be read in another way.
    reading: str = ""
    #: The field of the manifest that chooses this reading, where the family alone does not.
    decided_by: str = ""
    #: Whether the names of the outputs indicate this reading.
    hinted: bool = False
    #: What users should know about this reading; `streamer models check` prints it.
    note: str = ""

    @property
    def manifest_line(self) -> str:
        """The field of the manifest that chooses this reading."""
        return self.decided_by or f'"family": "{self.family}"'

    def class_rows(
        self, outputs: Mapping[str, npt.NDArray[Any]]
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]] | None:
        """Return boxes (N, 4), scores (N,) and class ids (N,) of all frames; None if classes are columns."""
        first = outputs[self.outputs[0]]
        if self.form is OutputForm.READY:
            boxes, scores = (outputs[name] for name in self.outputs[1:])
            return boxes.reshape(-1, 4), scores.reshape(-1), first.reshape(-1)
        rows = first.reshape(-1, first.shape[-1])
        if self.family is Family.YOLO_END2END:
            return rows[:, :4], rows[:, 4], rows[:, 5]
        if self.form is not OutputForm.FLAT:
            return None
        score, kind = FLAT_SCORE_AND_CLASS[self.family]
        return rows[:, 1:5], rows[:, score], rows[:, kind]


@dataclass(frozen=True, slots=True)
class Probe:
    """Holds the outputs of a model for one probe frame, and everything else that indicates its family."""

    path: str
    #: Output name to array, batch first, in the graph's order.
    outputs: Mapping[str, npt.NDArray[np.generic]]
    width: int
    height: int
    metadata: Mapping[str, str]
    manifest: Manifest
    has_sizes_input: bool = False
    #: Colour planes of the input: 3, or 1 for grey.
    planes: int = 3
    #: Whether the input takes pixels as uint8, so that the graph itself converts them.
    takes_bytes: bool = False
    #: Number of class names in the manifest or the metadata; 0 if there are none.
    name_count: int = 0
    #: Whether the planes of the input are its last dimension (NHWC).
    channels_last: bool = False

    @property
    def forced(self) -> bool:
        """Whether the manifest names the family, so that no other family is tried."""
        return self.manifest.family is not None

    def values(self, name: str) -> npt.NDArray[np.float32]:
        """Return an output for the probe frame, without the batch, as float32."""
        return np.asarray(self.outputs[name][0], np.float32)

    def tables(self) -> list[tuple[str, tuple[int, ...]]]:
        """Return the outputs that may hold one row per candidate, and their shape.

        There are several if a model has more than one head of the same shape: yolov9 has an auxiliary one.
        Equal outputs count once. Raw heads of rank 4 or 5 (yolov5) may be there, too.
        """
        rank3 = [(name, array) for name, array in self.outputs.items() if array.ndim == 3]
        if not rank3 or any(array.shape != rank3[0][1].shape for _, array in rank3[1:]):
            return []
        if any(array.ndim not in (3, 4, 5) for array in self.outputs.values()):
            return []
        found: list[tuple[str, npt.NDArray[np.generic]]] = []
        for name, array in rank3:
            if not any(np.array_equal(array, other) for _, other in found):
                found.append((name, array))
        return [(name, array.shape) for name, array in found]

    def cell_counts(self, per_cell: int = 1) -> set[int]:
        """Return the rows of a dense head with ``per_cell`` anchors per cell, for each of `STRIDE_SETS`."""
        return {per_cell * anchor_count(self.width, self.height, strides) for strides in STRIDE_SETS}


def anchor_count(width: int, height: int, strides: tuple[int, ...]) -> int:
    """Return the number of grid cells of a dense head."""
    return sum((width // stride) * (height // stride) for stride in strides)


def input_convention(layout: Layout, probe: Probe) -> Convention:
    """Return the convention of a layout for the model's own input: bytes or floats, three planes or one.

    Raises ModelRefused when the manifest contradicts the input.
    """
    convention = layout.convention
    manifest = probe.manifest
    if probe.takes_bytes:
        for field in ("scale", "mean", "std"):
            if getattr(manifest, field) is not None:
                raise ModelRefused(
                    probe.path,
                    expected=f"no `{field}` in the manifest, because the input is uint8",
                    found=f"`{field}` {getattr(manifest, field)}",
                    fix=f"Remove `{field}`: the graph itself converts pixels of 0 to 255.",
                )
        convention = replace(convention, scale=1.0, mean=_ZERO, std=_ONE)
    if probe.planes == 1:
        # The colour order of the family does not apply to a single plane.
        convention = replace(convention, colour=Colour.GREY)
    convention = convention.overridden(manifest)
    if (convention.colour is Colour.GREY) != (probe.planes == 1):
        raise ModelRefused(
            probe.path,
            expected='`colour` "grey" in the manifest for an input of one plane, "rgb" or "bgr" for three',
            found=f'"{convention.colour}" for an input of {probe.planes}',
            fix="Correct or remove `colour`.",
        )
    # A single plane has one mean and one deviation; values that differ between planes are for colour models.
    if probe.planes == 1 and (len(set(convention.mean)) > 1 or len(set(convention.std)) > 1):
        raise ModelRefused(
            probe.path,
            expected="one mean and one standard deviation for an input of one plane",
            found=f"mean {list(convention.mean)}, std {list(convention.std)}",
            fix='Set "mean": [m] and "std": [s] in the manifest.',
        )
    return convention


def are_fractions(boxes: npt.NDArray[np.floating[Any]]) -> bool | None:
    """Return whether boxes (N, 4) are fractions of the input and not pixels; None if there is no box.

    Rows of zeros and of -1 are padding.
    """
    shown = boxes[boxes.any(axis=1) & (boxes != -1).any(axis=1)]
    with np.errstate(invalid="ignore"):
        return bool(np.abs(shown).max() <= MAX_FRACTION) if len(shown) else None
