"""What ``streamer models optimize`` prints: what was made, what it costs and what it gains. Pure."""

from __future__ import annotations

from typing import Any

from streamer.model_tools.agreement import MATCH_IOU, Agreement
from streamer.model_tools.comparison import Speed
from streamer.model_tools.optimisation import Outcome, Precision
from streamer.model_zoo.progress import size_text

#: Gain below which a result is not worth its loss.
_WORTHWHILE_GAIN = 1.03
#: Below these, accuracy and calibration rest on too little.
_FEW_BOXES = 50
_FEW_PICTURES = 16


def verdict_text(outcome: Outcome) -> str:
    """Return the verdict for a terminal."""
    task = outcome.task
    lines = [f"{task.target}: {task.precision} for {'a GPU' if task.for_gpu else 'the CPU'}"]
    lines.append(f"  size      {size_text(outcome.bytes_before)} -> {size_text(outcome.bytes_after)}")
    lines.append(f"  loading   {outcome.load_before_s * 1e3:.0f} ms -> {outcome.load_after_s * 1e3:.0f} ms")
    if outcome.quantised is not None:
        made = outcome.quantised
        kept = f", {made.spared} kept in float32 as they lose too much" if made.spared else ""
        lines.append(f"  layers    {made.layers - made.spared} of {made.layers} in 8 bits{kept}")
        lines.append(f"            calibrated on {made.calibrated} pictures")
    lines += _agreement_lines(outcome.agreement)
    lines += [f"  speed     {_speed_text(speed)}" for speed in outcome.speeds]
    if outcome.no_gpu:
        lines.append(f"  speed     not measured: {outcome.no_gpu}")
        lines.append("            the CPU compared the boxes; it computes half precision in single")
    lines += [f"- {remark}" for remark in remarks(outcome)]
    return "\n".join(lines)


def _agreement_lines(agreement: Agreement | None) -> list[str]:
    if agreement is None:
        return ["  accuracy  not measured: give pictures with --images"]
    if not agreement.reference and not agreement.found:
        return [f"  accuracy  cannot be told: neither model finds anything on {agreement.pictures} pictures"]
    return [
        f"  accuracy  {agreement.recall:.1%} of the original's {agreement.reference} boxes found, "
        f"{agreement.precision:.1%} of the {agreement.found} found are the original's",
        f"            (same class, IoU of {MATCH_IOU} or more, {agreement.pictures} pictures)",
        f"            matching boxes: mean IoU {agreement.mean_iou:.3f}, scores off by "
        f"{agreement.mean_score_change:.3f} on average, {agreement.largest_score_change:.3f} at most",
    ]


def _speed_text(speed: Speed) -> str:
    return (
        f"{speed.original_s * 1e3:.1f} ms -> {speed.result_s * 1e3:.1f} ms on {speed.where}: "
        f"{speed.gain:.2f} times as fast"
    )


def remarks(outcome: Outcome) -> list[str]:
    """Return what a person should know before serving the result."""
    found = []
    agreement = outcome.agreement
    if agreement is not None and agreement.worst < outcome.task.wanted:
        found.append(
            f"The boxes agree to {agreement.worst:.1%}, less than the {outcome.task.wanted:.0%} wanted "
            "(--agreement): try it on your own data before you serve it."
        )
    if agreement is not None and agreement.reference < _FEW_BOXES:
        found.append(f"{agreement.reference} boxes are few to judge by; more pictures tell more.")
    if outcome.speeds and max(speed.gain for speed in outcome.speeds) < _WORTHWHILE_GAIN:
        found.append(
            "Only loading can gain: at each start onnxruntime does the same to the original."
            if outcome.task.precision is Precision.FP32
            else "It is not faster on this machine: the original is the better choice here."
        )
    if outcome.quantised is not None and outcome.quantised.calibrated < _FEW_PICTURES:
        found.append(
            f"{outcome.quantised.calibrated} pictures are few to calibrate on; 50 and more are better."
        )
    return found


def describe(outcome: Outcome) -> dict[str, Any]:
    """Return the verdict as plain JSON types."""
    agreement, quantised = outcome.agreement, outcome.quantised
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
        if quantised is None
        else {"all": quantised.layers, "spared": quantised.spared, "calibrated_on": quantised.calibrated},
        "accuracy": None if agreement is None else _describe_agreement(agreement),
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


def _describe_agreement(agreement: Agreement) -> dict[str, Any]:
    return {
        "pictures": agreement.pictures,
        "original_boxes": agreement.reference,
        "result_boxes": agreement.found,
        "recall": round(agreement.recall, 4),
        "precision": round(agreement.precision, 4),
        "mean_iou": round(agreement.mean_iou, 4),
        "mean_score_change": round(agreement.mean_score_change, 4),
        "largest_score_change": round(agreement.largest_score_change, 4),
    }
