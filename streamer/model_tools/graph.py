"""Reads, edits and writes ONNX models with the package `onnx`: opset, names, metadata and types.

Only files of `model_tools` import that package; the service itself does not need it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx.shape_inference
import onnx.version_converter
from onnx import ModelProto, TensorProto

from inference.core.errors import ModelRefused
from streamer.model_zoo.errors import CannotWrite

#: Opset 13 introduced per-channel quantisation; exporters write 17 today.
LEAST_OPSET = 13
OPSET = 17
_LARGEST_BYTES = 2**31 - 1


def read_graph(path: Path) -> ModelProto:
    """Read a model with its external data. Raises ModelRefused."""
    try:
        return onnx.load(str(path))
    except Exception as error:
        raise ModelRefused(
            str(path),
            expected="an ONNX model that can be edited",
            found=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
            fix="Export it again, with its external data in the same folder.",
        ) from error


def write_graph(model: ModelProto, path: Path) -> None:
    """Write a model to one file and flush it to the disk. Raises CannotWrite."""
    if model.ByteSize() > _LARGEST_BYTES:
        raise CannotWrite(f"{path}: {model.ByteSize()} bytes; an ONNX file has at most {_LARGEST_BYTES}")
    try:
        with path.open("wb") as stream:
            stream.write(model.SerializeToString())
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise CannotWrite(f"{path}: {error.strerror or error}") from error


def opset_of(model: ModelProto) -> int:
    """Return the version of the standard operators; 0 if none is imported."""
    return next((int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def with_newer_opset(model: ModelProto, path: Path) -> ModelProto:
    """Return the model in an opset that supports quantised weights. Raises ModelRefused."""
    if opset_of(model) >= LEAST_OPSET:
        return model
    try:
        return onnx.version_converter.convert_version(model, OPSET)
    except Exception as error:
        raise ModelRefused(
            str(path),
            expected=f"opset {LEAST_OPSET} or newer, or one that can be converted to {OPSET}",
            found=f"opset {opset_of(model)}, and the conversion failed: {' '.join(str(error).split())[:200]}",
            fix=f"Export it with opset {OPSET} (`opset={OPSET}`, `--opset {OPSET}`).",
        ) from error


def with_names(model: ModelProto) -> ModelProto:
    """Give every node a unique name, in place: quantisation refers to nodes by name."""
    seen: set[str] = set()
    for index, node in enumerate(model.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{index}_"
        seen.add(node.name)
    return model


def without_unused_opsets(model: ModelProto) -> ModelProto:
    """Remove the opsets that no node uses, in place: ONNX Runtime writes all opsets that it knows."""
    used = {_domain(node.domain) for node in model.graph.node} | {""}
    kept = [entry for entry in model.opset_import if _domain(entry.domain) in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    return model


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def metadata_of(model: ModelProto) -> dict[str, str]:
    """Return the metadata of a model."""
    return {entry.key: entry.value for entry in model.metadata_props}


def set_metadata(model: ModelProto, metadata: Mapping[str, str]) -> ModelProto:
    """Replace the metadata of a model, in place."""
    del model.metadata_props[:]
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    return model


def float_tensors(model: ModelProto) -> set[str]:
    """Return the names of all float32 activations."""
    inferred = onnx.shape_inference.infer_shapes(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    return {
        value.name
        for values in (inferred.graph.value_info, inferred.graph.input, inferred.graph.output)
        for value in values
        if value.type.tensor_type.elem_type == TensorProto.FLOAT and value.name not in constants
    }
