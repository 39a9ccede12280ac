"""Edits a model for a GPU: the edited model takes frames as they are in the ring and converts them itself.

With a GPU, converting pixels to floats on the CPU takes longer than anything else. For 16 frames of 640 px
through YOLOv9-t on an H200, the conversion took 19 of 40 ms on one core, copying the floats 10 ms, and the
model 9 ms (docs/decisions/0039). In the edited model, the first nodes of the graph convert the pixels. They
run on the GPU, and only a quarter of the bytes must be copied to it.
"""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path

import numpy as np

from inference.graph.onnx_graph import ELEMENTS, Node, OnnxGraph, make_node, read_graph, shape_of
from inference.models.layout import Convention
from inference.models.manifest import Colour
from inference.models.signature import ImageInput


def read_gpu_model(path: Path, image: ImageInput, convention: Convention) -> tuple[bytes, ImageInput] | None:
    """Return the edited model of an ONNX file, and its image input: uint8, (batch, height, width, 3), BGR.

    Returns None if the file must be loaded unedited, because it is very large, has nested graphs or weights
    in other files, is damaged, or takes something else than three planes of floats.
    """
    if image.planes != 3 or image.channels_last or image.takes_bytes:
        return None
    source = f"{image.name}_uint8"
    try:
        graph = read_graph(path)
        if graph is None or image.name in graph.tensors or _is_taken(graph, source):
            return None
        batch, _, height, width = shape_of(graph.inputs[image.name])
        nodes = _conversion(graph, source, image, convention)
        graph.feed(image.name, source, "uint8", (batch, height, width, 3), nodes)
        return graph.write(), dataclasses.replace(image, raw_name=source)
    except (OSError, ValueError, KeyError, struct.error):
        return None


def _is_taken(graph: OnnxGraph, name: str) -> bool:
    return name in graph.makers or name in graph.inputs or name in graph.tensors


def _conversion(graph: OnnxGraph, source: str, image: ImageInput, convention: Convention) -> list[Node]:
    """Return the nodes from ``source`` to the image input; the same arithmetic as in `Preprocessor`."""
    factors = [convention.scale / std for std in convention.std]
    offsets = [-mean / std for mean, std in zip(convention.mean, convention.std, strict=True)]
    swaps, scales, shifts = convention.colour is Colour.RGB, factors != [1.0] * 3, any(offsets)
    order, factor, offset = (f"{source}_{name}" for name in ("order", "factors", "offsets"))
    if swaps:
        graph.add_constant(order, np.array([2, 1, 0], np.int64))
    if scales:
        graph.add_constant(factor, np.array(factors, np.float32).reshape(3, 1, 1))
    if shifts:
        graph.add_constant(offset, np.array(offsets, np.float32).reshape(3, 1, 1))
    nodes = [make_node("Transpose", source, f"{source}_planes", perm=(0, 3, 1, 2))]
    if swaps:
        nodes.append(make_node("Gather", (nodes[-1].outputs[0], order), f"{source}_rgb", axis=1))
    nodes.append(make_node("Cast", nodes[-1].outputs, f"{source}_float", to=ELEMENTS["float32"]))
    if scales:
        nodes.append(make_node("Mul", (nodes[-1].outputs[0], factor), f"{source}_scaled"))
    if shifts:
        nodes.append(make_node("Add", (nodes[-1].outputs[0], offset), f"{source}_shifted"))
    # The last node makes the original input. onnxruntime removes a cast to the same type.
    element = ELEMENTS["float16" if image.half else "float32"]
    return [*nodes, make_node("Cast", nodes[-1].outputs, image.name, to=element)]
