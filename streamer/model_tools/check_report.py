"""Formats an inspection as text or as plain JSON types, for ``streamer models check``; it does no I/O."""

from __future__ import annotations

import dataclasses
from typing import Any

from inference.core.errors import ModelRefused
from inference.models.exporters import likely_exporters
from inference.models.layout import Convention
from inference.models.manifest import manifest_path
from inference.models.signature import Tensor
from streamer.model_tools.inspection import Inspection, ServedModel, Timing, label_source
from streamer.model_zoo.registry import size_text

_SHOWN_LABELS = 8
_TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
}


def report_text(result: Inspection, known_as: str | None = None) -> str:
    """Return the report as text. ``known_as`` is the name of the known model with this checksum, if any."""
    if result.served is not None:
        lines = [f"{result.path}: served as {result.served.model.family}"]
        lines += _file_lines(result, known_as)
        lines += _served_lines(result, result.served)
        lines += _timing_lines(result.served)
        remarks = result.remarks()
        lines += ["", *(f"- {remark}" for remark in remarks)] if remarks else []
    else:
        lines = [f"{result.path}: refused", *_file_lines(result, known_as)]
        lines += _refusal_lines(result, result.refusal) if result.refusal is not None else []
    return "\n".join(lines)


def _refusal_lines(result: Inspection, refusal: ModelRefused) -> list[str]:
    lines = [_line("wrong in", refusal.path)] if refusal.path != str(result.path) else []
    lines += [
        _line("expected", refusal.expected),
        _line("found", refusal.found),
        _line("fix", refusal.fix),
    ]
    if result.size is None:
        return lines  # there is no file that could be exported differently
    exporters = likely_exporters(result.path.name, result.header)
    width = max(len(exporter.framework) for exporter in exporters)
    lines += ["", "Commands that export a file that the service accepts:"]
    return lines + [f"  {exporter.framework:<{width}}  {exporter.command}" for exporter in exporters]


def _line(name: str, text: str) -> str:
    return f"  {name:<9} {text}"


def _file_lines(result: Inspection, known_as: str | None) -> list[str]:
    if result.size is None:
        return []
    header = result.header
    parts = [size_text(result.size)]
    if header.opset:
        written = f", written by {header.producer}" if header.producer else ""
        parts.append(f"opset {header.opset}, IR {header.ir_version}{written}")
    lines = [_line("file", "; ".join(parts))]
    if result.sha256:
        known = f" (the known model {known_as})" if known_as else ""
        lines.append(_line("sha256", result.sha256 + known))
    return lines


def _served_lines(result: Inspection, served: ServedModel) -> list[str]:
    model, image = served.model, served.image
    used = manifest_fields(served)
    lines = [_line("input", f"{_tensor_text(tensor)}") for tensor in served.graph.inputs]
    lines.append(
        _line("frames", f"{model.input_width}x{model.input_height}, {_convention_text(served.convention)}")
    )
    lines += [
        _line("output", f"{_tensor_text(tensor)}{'' if tensor.name in served.outputs else ', not used'}")
        for tensor in served.graph.outputs
    ]
    batches = ", ".join(map(str, served.buckets))
    lines.append(
        _line("batch", f"fixed at {image.batch}" if image.batch is not None else f"dynamic: run as {batches}")
    )
    lines.append(
        _line("classes", f"{len(model.labels)}, {label_source(served)}: {_labels_text(model.labels)}")
    )
    lines.append(
        _line(
            "manifest", f"{manifest_path(result.path).name}: {', '.join(used) or 'empty'}" if used else "none"
        )
    )
    lines.append(_line("licence", result.licence or "not recorded"))
    return lines


def manifest_fields(served: ServedModel) -> dict[str, Any]:
    """Return the fields that are set in the manifest."""
    return {name: value for name, value in dataclasses.asdict(served.manifest).items() if value is not None}


def _tensor_text(tensor: Tensor) -> str:
    sides = ", ".join("dynamic" if side is None else str(side) for side in tensor.shape)
    return f"`{tensor.name}` {_TYPES.get(tensor.dtype, tensor.dtype)} [{sides}]"


def _convention_text(convention: Convention) -> str:
    scale = "0-255" if convention.scale == 1 else f"times {convention.scale:.6g}"
    spread = ""
    if any(convention.mean) or convention.std != (1.0, 1.0, 1.0):
        spread = f", minus {list(convention.mean)}, by {list(convention.std)}"
    border = "" if convention.placement == "stretch" else f", border {convention.pad_value}"
    return f"{convention.placement}{border}, {convention.colour.upper()}, {scale}{spread}"


def _labels_text(labels: tuple[str, ...]) -> str:
    more = ", …" if len(labels) > _SHOWN_LABELS else ""
    text = ", ".join(labels[:_SHOWN_LABELS]) + more
    return "".join(char if char.isprintable() else "?" for char in text)


def _timing_lines(served: ServedModel) -> list[str]:
    if not served.timings:
        return []
    on_all = served.timings[0].all_cores_s is not None
    where = "one core" if served.model.provider == "cpu" else served.model.provider
    lines = ["", f"  {'batch':>5}  {where:>20}" + (f"  {f'{served.cores} cores':>20}" if on_all else "")]
    lines += [_timing_row(timing) for timing in served.timings]
    formed = ", ".join(map(str, served.formed))
    lines.append(f"  With these times the service forms batches of {formed}.")
    if (at_once := served.at_once) is not None:
        run_ms = at_once.run_s * 1e3
        lines.append(
            f"  In {at_once.threads} threads at once, a run with batch {at_once.batch} takes {run_ms:.1f} ms."
        )
    times = ",".join(f"{timing.batch}:{timing.one_core_s * 1e3:.1f}" for timing in served.timings)
    return [*lines, f"  For `streamer simulate streams`: --run-times {times}, or the file of --json."]


def _timing_row(timing: Timing) -> str:
    row = f"  {timing.batch:>5}  {_cost_text(timing.batch, timing.one_core_s):>20}"
    return row if timing.all_cores_s is None else f"{row}  {_cost_text(timing.batch, timing.all_cores_s):>20}"


def _cost_text(batch: int, seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms {batch / seconds:6.1f} /s"


def report_json(result: Inspection, known_as: str | None = None) -> dict[str, Any]:
    """Return the report as plain JSON types."""
    report: dict[str, Any] = {
        "file": str(result.path),
        "served": result.served is not None,
        "bytes": result.size,
        "sha256": result.sha256,
        "known_as": known_as,
        "opset": result.header.opset or None,
        "ir_version": result.header.ir_version or None,
        "producer": result.header.producer or None,
        "licence": result.licence,
    }
    if result.refusal is not None:
        report["refusal"] = {
            "path": result.refusal.path,
            "expected": result.refusal.expected,
            "found": result.refusal.found,
            "fix": result.refusal.fix,
        }
        report["exporters"] = {
            exporter.framework: exporter.command
            for exporter in likely_exporters(result.path.name, result.header)
        }
    if result.served is not None:
        report |= _served_json(result, result.served)
    return report


def _served_json(result: Inspection, served: ServedModel) -> dict[str, Any]:
    model = served.model
    return {
        "name": model.name,
        "family": model.family.value,
        "input": {"width": model.input_width, "height": model.input_height},
        "placement": model.placement.value,
        "inputs": [_tensor_json(tensor) for tensor in served.graph.inputs],
        "outputs": [_tensor_json(tensor) for tensor in served.graph.outputs],
        "batch": served.image.batch,
        "labels": list(model.labels),
        "labels_from": label_source(served),
        "manifest": manifest_fields(served),
        "device": model.provider,
        "cores": served.cores,
        "timings": [_timing_json(timing) for timing in served.timings],
        "batches_formed": list(served.formed),
        "at_once": None
        if served.at_once is None
        else {
            "threads": served.at_once.threads,
            "batch": served.at_once.batch,
            "ms": round(served.at_once.run_s * 1e3, 3),
        },
        "wake_up_ms": None if served.wake_up_s is None else round(served.wake_up_s * 1e3, 4),
        "remarks": result.remarks(),
    }


def _tensor_json(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "type": _TYPES.get(tensor.dtype, tensor.dtype), "shape": list(tensor.shape)}


def _timing_json(timing: Timing) -> dict[str, Any]:
    return {
        "batch": timing.batch,
        "one_core_ms": round(timing.one_core_s * 1e3, 3),
        "all_cores_ms": None if timing.all_cores_s is None else round(timing.all_cores_s * 1e3, 3),
    }
