"""The five families of detectors: the input of each, and how its outputs are recognised."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from inference.core.errors import ModelRefused
from inference.models.fields import Triple
from inference.models.manifest import Activation, Colour, Manifest
from inference.models.model import Family, Placement

#: Strides of the grids of common detection heads: the usual one, one with an extra coarse level (P6 models),
#: and one with an extra fine level (P2 models).
STRIDE_SETS = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32))
_ANCHORS_PER_CELL = 3  # in YOLOv5 and YOLOv7
#: A detr has a few hundred queries; thousands of rows belong to a dense head of another kind.
_MAX_QUERIES = 2000
_IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
_IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
_COCO_LOGITS_WITH_NO_OBJECT = 92


@dataclass(frozen=True, slots=True)
class Convention:
    """How pixels enter the model: ``(pixel * scale - mean) / std`` per plane, in ``colour`` order."""

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
    Family.YOLOX: Convention(Placement.TOP_LEFT, 114, Colour.BGR, 1.0, _ZERO, _ONE),
    Family.DETR: _RGB_STRETCHED,
}

#: For each family, the command that exports a file which this service can read.
EXPORTS: Mapping[Family, str] = {
    Family.YOLO: "yolo export model=best.pt format=onnx dynamic=True",
    Family.YOLO_END2END: "yolo export model=best.pt format=onnx dynamic=True nms=True",
    Family.YOLOV5: "python export.py --weights best.pt --include onnx --dynamic",
    Family.YOLOX: "python tools/export_onnx.py -n yolox-nano -c best.pth --output-name best.onnx --dynamic",
    Family.DETR: "python tools/export_onnx.py -c config.yml -r best.pth",
}


class DetrForm(StrEnum):
    """The two output forms of detr exports."""

    #: Class id, xyxy box and score per query.
    READY = "labels, boxes, scores"
    #: Class logits and a normalised cx cy w h box per query.
    LOGITS = "logits, boxes"


@dataclass(frozen=True, slots=True)
class Layout:
    """A recognised model: which outputs to read, in the order of `Postprocessor`, and how."""

    family: Family
    outputs: tuple[str, ...]
    #: None: the outputs do not show it.
    class_count: int | None
    convention: Convention
    #: Grid strides of a yolox head; empty for other families, whose boxes are in pixels.
    strides: tuple[int, ...] = ()
    detr: DetrForm | None = None
    activation: Activation = Activation.SIGMOID
    #: Whether the boxes of a READY detr are in 0..1 instead of input pixels.
    normalised: bool = False

    def class_ids(self, outputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any] | None:
        """Return the class ids in ``outputs``; None where each class is a column."""
        if self.family is Family.YOLO_END2END:
            return outputs[self.outputs[0]][..., 5]
        return outputs[self.outputs[0]] if self.detr is DetrForm.READY else None


@dataclass(frozen=True, slots=True)
class Probe:
    """The outputs of a model for one probe frame, and everything else that shows its family."""

    path: str
    #: Output name to array, batch first, in the graph's order.
    outputs: Mapping[str, npt.NDArray[np.generic]]
    width: int
    height: int
    metadata: Mapping[str, str]
    manifest: Manifest
    has_sizes_input: bool = False

    @property
    def forced(self) -> bool:
        """Whether the manifest names the family, so that no other family is tried."""
        return self.manifest.family is not None

    def rows(self) -> tuple[str, tuple[int, ...]] | None:
        """Return the output that holds one row per candidate, and its shape; None if there is no such output.

        Besides it there may be copies (the auxiliary head of yolov9) and raw heads of rank 4 or 5 (yolov5).
        """
        rank3 = [(name, array.shape) for name, array in self.outputs.items() if array.ndim == 3]
        if not rank3 or any(shape != rank3[0][1] for _, shape in rank3[1:]):
            return None
        if any(array.ndim not in (3, 4, 5) for array in self.outputs.values()):
            return None
        return rank3[0]


def anchor_count(width: int, height: int, strides: tuple[int, ...]) -> int:
    """Return the number of grid cells of a dense head."""
    return sum((width // stride) * (height // stride) for stride in strides)


def recognise(probe: Probe) -> Layout:
    """Return the layout of the model that produced ``probe``.

    Raises ModelRefused, naming the shapes that were found and those of its family, or of every family.
    """
    families = [probe.manifest.family] if probe.manifest.family else list(_RECOGNISERS)
    for family in families:
        layout = _RECOGNISERS[family](probe)
        if layout is not None:
            return replace(layout, convention=layout.convention.overridden(probe.manifest))
    raise ModelRefused(
        probe.path,
        expected=f"outputs of {'family ' if probe.forced else ''}"
        + "; or ".join(f"{family}: {_expected(family, probe)}" for family in families),
        found=", ".join(f"`{name}` {list(array.shape)}" for name, array in list(probe.outputs.items())[:8]),
        fix=f"Export it with `{EXPORTS[families[0]]}`"
        + ("" if probe.forced else ", or name its `family` in the manifest")
        + f"; the input is {probe.width}x{probe.height} (manifest field `input` where it is dynamic).",
    )


def _expected(family: Family, probe: Probe) -> str:
    cells = anchor_count(probe.width, probe.height, STRIDE_SETS[0])
    return {
        Family.YOLO: f"[batch, 4 + classes, {cells}]",
        Family.YOLO_END2END: "[batch, boxes, 6]",
        Family.YOLOV5: f"[batch, {_ANCHORS_PER_CELL * cells}, 5 + classes]",
        Family.YOLOX: f"[batch, {cells}, 5 + classes]",
        Family.DETR: "labels, boxes and scores; or logits [batch, queries, classes] and boxes [.., .., 4]",
    }[family]


def _yolo(probe: Probe) -> Layout | None:
    found = probe.rows()
    if found is None:
        return None
    name, (_, channels, cells) = found
    dense = cells in {anchor_count(probe.width, probe.height, strides) for strides in STRIDE_SETS}
    if channels < 5 or not (dense or (probe.forced and cells > channels)):
        return None
    return Layout(Family.YOLO, (name,), channels - 4, CONVENTIONS[Family.YOLO])


def _yolov5(probe: Probe) -> Layout | None:
    found = probe.rows()
    if found is None:
        return None
    name, (_, cells, channels) = found
    dense = cells in {
        _ANCHORS_PER_CELL * anchor_count(probe.width, probe.height, strides) for strides in STRIDE_SETS
    }
    if channels < 6 or not (dense or (probe.forced and cells > channels)):
        return None
    return Layout(Family.YOLOV5, (name,), channels - 5, CONVENTIONS[Family.YOLOV5])


def _yolox(probe: Probe) -> Layout | None:
    found = probe.rows()
    if found is None:
        return None
    name, (_, cells, channels) = found
    strides = next(
        (s for s in STRIDE_SETS if anchor_count(probe.width, probe.height, s) == cells and channels >= 6),
        None,
    )
    if strides is None:
        return None
    offsets = np.abs(probe.outputs[name][0, :, :2].astype(np.float32))
    # Raw offsets are about one grid cell; pixel coordinates are about half the input. Confusing the two would
    # give boxes that look plausible and are wrong.
    if float(np.median(offsets)) > min(probe.width, probe.height) / 8:
        raise ModelRefused(
            probe.path,
            expected="raw grid offsets, as family yolox has them",
            found="boxes that are in pixels already",
            fix='Name the manifest\'s `family` "yolov5" (as YOLOv6 needs); for YOLOX exported with '
            '--decode_in_inference also "colour": "bgr", "scale": 1, "placement": "top-left".',
        )
    return Layout(Family.YOLOX, (name,), channels - 5, CONVENTIONS[Family.YOLOX], strides=strides)


def _end2end(probe: Probe) -> Layout | None:
    found = probe.rows()
    if found is None or found[1][2] != 6:
        return None
    name, (_, rows, _) = found
    declared = probe.forced or probe.metadata.get("end2end") == "True"
    cells = {anchor_count(probe.width, probe.height, strides) for strides in STRIDE_SETS}
    if not declared and (rows in cells or rows in {_ANCHORS_PER_CELL * count for count in cells}):
        return None  # it may be a yolox or yolov5 model with one class
    return Layout(Family.YOLO_END2END, (name,), None, CONVENTIONS[Family.YOLO_END2END])


def _detr(probe: Probe) -> Layout | None:
    shapes = {name: array.shape for name, array in probe.outputs.items()}
    rank3 = [name for name, shape in shapes.items() if len(shape) == 3]
    boxes = next((name for name in sorted(rank3, key=_box_names_first) if shapes[name][2] == 4), None)
    if boxes is None or shapes[boxes][1] > _MAX_QUERIES:
        return None
    rank2 = [name for name, shape in shapes.items() if shape == shapes[boxes][:2]]
    ids = next((name for name in rank2 if "label" in name or "class" in name), None)
    scores = next((name for name in rank2 if name != ids), None)
    if ids is not None and scores is not None:
        in_unit = float(np.max(probe.outputs[boxes].astype(np.float32), initial=0.0)) <= 2.0
        return Layout(
            Family.DETR,
            (ids, boxes, scores),
            None,
            CONVENTIONS[Family.DETR],
            detr=DetrForm.READY,
            normalised=in_unit and not probe.has_sizes_input,
        )
    logits = next((name for name in rank3 if name != boxes and shapes[name][1] == shapes[boxes][1]), None)
    if logits is None:
        return None
    return _detr_logits(probe, logits, boxes, shapes[logits][2])


def _box_names_first(name: str) -> bool:
    """Sort key that puts names of boxes first: with four classes both outputs have four columns."""
    return "box" not in name and "det" not in name


def _detr_logits(probe: Probe, logits: str, boxes: str, count: int) -> Layout:
    activation = probe.manifest.activation or (
        Activation.SOFTMAX if count == _COCO_LOGITS_WITH_NO_OBJECT else Activation.SIGMOID
    )
    convention = CONVENTIONS[Family.DETR]
    # RF-DETR (`dets`, `labels`) and the original DETR keep the normalisation of their backbones.
    if boxes == "dets" or activation is Activation.SOFTMAX:
        convention = replace(convention, mean=_IMAGENET_MEAN, std=_IMAGENET_STD)
    return Layout(
        Family.DETR,
        (logits, boxes),
        count - 1 if activation is Activation.SOFTMAX else count,
        convention,
        detr=DetrForm.LOGITS,
        activation=activation,
    )


#: In the order in which they are tried: the most specific first.
_RECOGNISERS: Mapping[Family, Callable[[Probe], Layout | None]] = {
    Family.YOLO: _yolo,
    Family.YOLO_END2END: _end2end,
    Family.YOLOX: _yolox,
    Family.YOLOV5: _yolov5,
    Family.DETR: _detr,
}
