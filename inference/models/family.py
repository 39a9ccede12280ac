"""Recognises the family of a model: collects what its outputs may mean, and decides by their values."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from inference.core.errors import ModelRefused
from inference.models import dense_heads, exporters, query_heads
from inference.models.layout import STRIDE_SETS, Layout, Probe, anchor_count, input_convention
from inference.models.manifest import manifest_path
from inference.models.model import Family
from inference.models.value_ranges import fault_of

_Recogniser = Callable[[Probe], Iterator[Layout]]

_RECOGNISERS: Mapping[Family, tuple[_Recogniser, ...]] = {
    Family.YOLO: (dense_heads.yolo, query_heads.ready),
    Family.YOLO_END2END: (query_heads.end2end,),
    Family.YOLOX: (dense_heads.yolox,),
    Family.YOLOV5: (dense_heads.yolov5,),
    Family.YOLOV7_END2END: (query_heads.yolov7_end2end,),
    Family.YOLO_NAS: (dense_heads.yolo_nas, query_heads.yolo_nas_flat, query_heads.ready),
    Family.DETR: (query_heads.ready, query_heads.logits, query_heads.joined),
}

#: Columns of boxes that end with their score.
_BOX_AND_SCORE = 5
#: Outputs of TensorFlow's detection API: boxes as y1 x1 y2 x2, and class ids from 1.
_TENSORFLOW_OUTPUTS = {"detection_boxes", "detection_classes", "detection_scores"}


def recognise(probe: Probe) -> Layout:
    """Return the layout of the model that produced ``probe``.

    Raises ModelRefused when no family has outputs of these shapes, when the values contradict every reading
    of the shapes, or when more than one reading is left; the text names the readings.
    """
    # TensorFlow adds the number of the output, and perhaps the name of a part of the graph.
    if {name.partition(":")[0].rpartition("/")[2] for name in probe.outputs} >= _TENSORFLOW_OUTPUTS:
        raise _refusal(
            probe,
            "boxes as x1 y1 x2 y2 and class ids from 0",
            "the outputs of TensorFlow's detection API, whose boxes are y1 x1 y2 x2 and whose ids begin at 1",
            "Train or choose a model of another framework.",
        )
    families = [probe.manifest.family] if probe.manifest.family else list(_RECOGNISERS)
    seen = _chosen_outputs(probe)
    readings = [
        layout
        for family in families
        for recogniser in _RECOGNISERS[family]
        for layout in recogniser(seen)
        if layout.family is family
    ]
    if not readings:
        raise _unknown_shapes(probe, families)
    faults = [fault_of(probe, layout) for layout in readings]
    fitting = [layout for layout, fault in zip(readings, faults, strict=True) if not fault]
    if not fitting:
        raise _wrong_values(probe, readings, faults)
    if len(fitting) > 1 and probe.name_count:
        fitting = [x for x in fitting if x.class_count in (None, probe.name_count)] or fitting
    if len(fitting) > 1:
        fitting = [layout for layout in fitting if layout.hinted] or fitting
    if len(fitting) > 1:
        raise _ambiguous(probe, fitting)
    return replace(fitting[0], convention=input_convention(fitting[0], probe))


def _unknown_shapes(probe: Probe, families: list[Family]) -> ModelRefused:
    return _refusal(
        probe,
        f"outputs of {'family ' if probe.forced else ''}"
        + "; or ".join(f"{family}: {_expected(family, probe)}" for family in families),
        _found(probe) + _task_of(probe),
        _advice(probe)
        + ("" if probe.forced else ", or name its `family` in the manifest")
        + f"; the input is {probe.width}x{probe.height} (manifest field `input` where it is dynamic).",
    )


def _wrong_values(probe: Probe, readings: list[Layout], faults: list[str]) -> ModelRefused:
    found = dict.fromkeys(
        f"as {layout.family} ({layout.reading}): {fault}"
        for layout, fault in zip(readings, faults, strict=True)
    )
    decoded = any("not raw grid offsets" in fault for fault in faults)
    return _refusal(
        probe,
        "a detection model: boxes, and scores of 0 to 1",
        f"{_found(probe)}, and in a validation run {'; '.join(found)}",
        'Set "family" in the manifest: "yolov5" where the fifth number is objectness (YOLOv6; for YOLOX '
        'exported with --decode_in_inference also "colour": "bgr", "scale": 1, "placement": "top-left"), '
        '"yolo" where the class scores follow the box directly (YOLOv8 and later, transposed).'
        if decoded
        else _task_advice(faults) + _advice(probe) + ".",
    )


def _task_advice(faults: list[str]) -> str:
    if any(task in fault for fault in faults for task in ("pose", "oriented", "mask", "segmentation")):
        return "Keypoints, masks and oriented boxes are not served: train or choose a `detect` model. "
    return ""


def _ambiguous(probe: Probe, readings: list[Layout]) -> ModelRefused:
    several = len({layout.outputs for layout in readings}) > 1
    if several and len({layout.manifest_line for layout in readings}) == 1:
        return _several_heads(probe, readings)
    lines = " or ".join(f"`{layout.manifest_line}`" for layout in readings)
    fix = f"Set {lines} in {manifest_path(Path(probe.path)).name}, whichever is right."
    return _refusal(
        probe,
        "outputs with one meaning",
        f"{_found(probe)}, which may be "
        + " or ".join(f"{layout.family} ({layout.reading})" for layout in readings),
        fix,
    )


def _chosen_outputs(probe: Probe) -> Probe:
    """Return the probe with only the outputs that the manifest names. Raises ModelRefused if one lacks."""
    names = probe.manifest.output
    if names is None:
        return probe
    if missing := [name for name in names if name not in probe.outputs]:
        raise _refusal(
            probe,
            "`output` in the manifest to name outputs of the model",
            f"`{missing[0][:60]}`, and the outputs are {_found(probe)}",
            "Correct or remove `output`.",
        )
    return replace(probe, outputs={name: probe.outputs[name] for name in names})


def _several_heads(probe: Probe, readings: list[Layout]) -> ModelRefused:
    """Return the refusal for outputs that differ in their values only, of which some are auxiliary."""
    chosen = dict.fromkeys(layout.outputs for layout in readings)
    lines = " or ".join(
        f'`"output": {json.dumps(names[0] if len(names) == 1 else names)}`' for names in chosen
    )
    fix = f"Set {lines} in {manifest_path(Path(probe.path)).name}, whichever is right."
    if readings[0].family is Family.YOLO:
        fix += (
            " YOLOv9's repository exports the auxiliary head first and the main one second; converted models "
            "have only the main one."
        )
    return _refusal(
        probe,
        "outputs for one set of boxes",
        f"{_found(probe)}: heads of one shape with different values, any of which may be the main one, read "
        f"as {readings[0].family} ({readings[0].reading})",
        fix,
    )


def _refusal(probe: Probe, expected: str, found: str, fix: str) -> ModelRefused:
    return ModelRefused(probe.path, expected=expected, found=found, fix=fix)


def _advice(probe: Probe) -> str:
    """Return how to export the file, as a sentence without its full stop."""
    boxes = probe.outputs.get("dets")
    if boxes is not None and boxes.shape[-1] == _BOX_AND_SCORE:
        return exporters.not_read("MMDetection (MMDeploy)")
    return exporters.advice(probe.path, probe.outputs)


def _found(probe: Probe) -> str:
    return ", ".join(f"`{name}` {list(array.shape)}" for name, array in list(probe.outputs.items())[:8])


def _task_of(probe: Probe) -> str:
    """Return a guess at the task of a model that has no boxes, as the end of a sentence."""
    shapes = [array.shape for array in probe.outputs.values()]
    if len(shapes) == 1 and len(shapes[0]) == 2:
        return " (one row of numbers for each frame, perhaps a classifier)"
    if len(shapes) > 1 and all(len(shape) in (4, 5) for shape in shapes) and len(set(shapes)) > 1:
        return " (perhaps the raw heads of several grids: export it with the decoding of boxes in the graph)"
    if any(len(shape) == 4 for shape in shapes) and any("mask" in name for name in probe.outputs):
        return " (perhaps a segmentation model)"
    return ""


def _expected(family: Family, probe: Probe) -> str:
    cells = anchor_count(probe.width, probe.height, STRIDE_SETS[0])
    return {
        Family.YOLO: f"[batch, 4 + classes, {cells}]",
        Family.YOLO_END2END: "[batch, boxes, 6]",
        Family.YOLOV5: f"[batch, {dense_heads.ANCHORS_PER_CELL * cells}, 5 + classes]",
        Family.YOLOV7_END2END: "[rows, 7]",
        Family.YOLOX: f"[batch, {cells}, 5 + classes]",
        Family.YOLO_NAS: f"[batch, {cells}, 4] and [batch, {cells}, classes]; or [rows, 7]",
        Family.DETR: "labels, boxes and scores; or logits [batch, queries, classes] and boxes [.., .., 4]; "
        "or [batch, queries, 4 + classes]",
    }[family]
