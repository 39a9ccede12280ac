"""The output of ``streamer models optimize``: the result, what it costs and what it gains. Pure."""

from __future__ import annotations

from typing import Any

from streamer.model_tools.agreement import MATCH_IOU, Agreement
from streamer.model_tools.comparison import Speed
from streamer.model_tools.optimisation import Outcome, Precision
from streamer.model_zoo.progress import size_text

#: A smaller gain in speed is not worth the loss of accuracy.
_WORTHWHILE_GAIN = 1.03
#: With fewer boxes the accuracy is uncertain, with fewer images the calibration.
_FEW_BOXES = 50
_FEW_IMAGES = 16


def report_text(outcome: Outcome) -> str:
    """Return the report as text."""
    task = outcome.task
    lines = [f"{task.target}: {task.precision} for {'a GPU' if task.for_gpu else 'the CPU'}"]
    lines.append(f"  size      {size_text(outcome.bytes_before)} -> {size_text(outcome.bytes_after)}")
    lines.append(f"  loading   {outcome.load_before_s * 1e3:.0f} ms -> {outcome.load_after_s * 1e3:.0f} ms")
    if outcome.int8 is not None:
        int8 = outcome.int8
        kept = ""
        if int8.float32_layers:
            kept = f", {int8.float32_layers} kept in float32 because they lose too much"
        lines.append(f"  layers    {int8.layers - int8.float32_layers} of {int8.layers} in 8 bits{kept}")
        lines.append(f"            calibrated on {int8.calibrated} images")
    lines += _agreement_lines(outcome.agreement)
    lines += [f"  speed     {_speed_text(speed)}" for speed in outcome.speeds]
    if outcome.no_gpu:
        lines.append(f"  speed     not measured: {outcome.no_gpu}")
        lines.append(
            "            the boxes were compared on the CPU, which computes half precision in float32"
        )
    lines += [f"- {remark}" for remark in remarks(outcome)]
    return "\n".join(lines)


def _agreement_lines(agreement: Agreement | None) -> list[str]:
    if agreement is None:
        return ["  accuracy  not measured: pass images with --images"]
    if not agreement.reference and not agreement.found:
        return [f"  accuracy  unknown: neither model finds anything on {agreement.images} images"]
    return [
        f"  accuracy  {agreement.recall:.1%} of the original's {agreement.reference} boxes found, "
        f"{agreement.precision:.1%} of the {agreement.found} found are the original's",
        f"            (same class, IoU of {MATCH_IOU} or more, {agreement.images} images)",
        f"            matched boxes: mean IoU {agreement.mean_iou:.3f}, scores off by "
        f"{agreement.mean_score_change:.3f} on average, {agreement.largest_score_change:.3f} at most",
    ]


def _speed_text(speed: Speed) -> str:
    return (
        f"{speed.original_s * 1e3:.1f} ms -> {speed.result_s * 1e3:.1f} ms on {speed.where}: "
        f"{speed.gain:.2f} times as fast"
    )


def remarks(outcome: Outcome) -> list[str]:
    """Return what to know before the result is served."""
    found = []
    agreement = outcome.agreement
    if agreement is not None and agreement.worst < outcome.task.min_agreement:
        found.append(
            f"The boxes agree to {agreement.worst:.1%}, less than the {outcome.task.min_agreement:.0%} "
            "wanted (--agreement): test it on your own data before you serve it."
        )
    if agreement is not None and agreement.reference < _FEW_BOXES:
        found.append(f"{agreement.reference} boxes are few to judge by; use more images.")
    if outcome.speeds and max(speed.gain for speed in outcome.speeds) < _WORTHWHILE_GAIN:
        found.append(
            "Only loading becomes faster: ONNX Runtime optimises the original in the same way at each start."
            if outcome.task.precision is Precision.FP32
            else "It is not faster on this machine: the original is the better choice here."
        )
    if outcome.int8 is not None and outcome.int8.calibrated < _FEW_IMAGES:
        found.append(f"{outcome.int8.calibrated} images are few to calibrate on; use 50 or more.")
    return found


def report_json(outcome: Outcome) -> dict[str, Any]:
    """Return the report as plain JSON types."""
    agreement, int8 = outcome.agreement, outcome.int8
    return {
        "file": str(outcome.task.target),
        "source": str(outcome.task.source),
        "precision": outcome.task.precision.value,
        "device": outcome.device,
        "sha256": outcome.sha256,
        "bytes": {"original": outcome.bytes_before, "result": outcome.bytes_after},
        "load_ms": {
            "original": round(outcome.load_before_s * 1e3, 1),
            "result": round(outcome.load_after_s * 1e3, 1),
        },
        "layers": None
        if int8 is None
        else {"all": int8.layers, "spared": int8.float32_layers, "calibrated_on": int8.calibrated},
        "accuracy": None if agreement is None else _agreement_json(agreement),
        "speed": [
            {
                "where": speed.where,
                "original_ms": round(speed.original_s * 1e3, 3),
                "result_ms": round(speed.result_s * 1e3, 3),
                "gain": round(speed.gain, 3),
            }
            for speed in outcome.speeds
        ],
        "remarks": remarks(outcome),
    }


def _agreement_json(agreement: Agreement) -> dict[str, Any]:
    return {
        "pictures": agreement.images,
        "original_boxes": agreement.reference,
        "result_boxes": agreement.found,
        "recall": round(agreement.recall, 4),
        "precision": round(agreement.precision, 4),
        "mean_iou": round(agreement.mean_iou, 4),
        "mean_score_change": round(agreement.mean_score_change, 4),
        "largest_score_change": round(agreement.largest_score_change, 4),
    }
