"""Edits a model for a CPU, so that onnxruntime computes less than it would for the model in the file.

No edit changes the results. `stem` removes a space-to-depth stem, `head` opens the head of a YOLOX, and
`chain_pools` chains parallel pools.

YOLOX, YOLOv4, YOLOv7 and YOLOv5 up to 5.0 pool one tensor with windows of 5, 9 and 13 pixels. The maximum of
a window of 9 is the maximum of maxima of windows of 5, so a chain of small pools gives the same numbers with
fewer comparisons. That saves some 0.2 of the 12 ms of YOLOX-nano (bench/model_side.py).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from inference.graph.head import Head, open_head
from inference.graph.onnx_graph import Node, OnnxGraph, make_node, read_graph
from inference.graph.stem import Stem, take_stem

#: Attributes of a plain pool. Pools with other attributes are not edited.
_PLAIN = frozenset(("kernel_shape", "pads", "strides", "dilations", "ceil_mode", "storage_order", "auto_pad"))


@dataclass(frozen=True, slots=True)
class CpuModel:
    """Holds an edited model, and how its inputs and outputs differ from those of the file."""

    model: bytes
    #: The removed stem, or None if the model takes whole images.
    stem: Stem | None
    #: The opened head, or None if the model has the outputs of the file.
    head: Head | None


def read_cpu_model(path: Path, *, opened: bool = True) -> CpuModel | None:
    """Return the edited model of an ONNX file; None where no edit applies.

    ``opened`` says whether to open its head, too. Returns None also if the file is not an ONNX file, is
    damaged, or keeps weights in other files: then onnxruntime loads or refuses the file itself.
    """
    try:
        graph = read_graph(path)
        if graph is None:
            return None
        stem = take_stem(graph)
        chained = chain_pools(graph)
        head = open_head(graph) if opened else None
        return CpuModel(graph.write(), stem, head) if stem or chained or head else None
    except (OSError, ValueError, struct.error):
        return None


def chain_pools(graph: OnnxGraph) -> bool:
    """Chain parallel pools of one tensor, the smallest first; return whether there were any."""
    changed = False
    for source, pools in _pyramids(graph):
        chain: list[Node] = []
        below, kernel = source, 1
        for wanted, pool in sorted(pools.items()):
            # A pool of windows of `side` over the maxima of windows of `kernel` covers windows of `wanted`.
            side = wanted - kernel + 1
            pads = [side // 2] * 4
            chain.append(make_node("MaxPool", below, pool.outputs[0], kernel_shape=[side] * 2, pads=pads))
            below, kernel = pool.outputs[0], wanted
        graph.replace(list(pools.values()), chain)
        changed = True
    return changed


def _pyramids(graph: OnnxGraph) -> Iterator[tuple[str, dict[int, Node]]]:
    """Yield each tensor that several pools of different windows read, with these pools by window."""
    for source, readers in graph.readers.items():
        pools = [(window, node) for node in readers if (window := _window(graph, node))]
        if len(pools) > 1 and len(dict(pools)) == len(pools):
            yield source, dict(pools)


def _window(graph: OnnxGraph, node: Node) -> int:
    """Return the window side of a pool whose output is as large as its input; 0 for any other node."""
    kernel, pads = node.int_list("kernel_shape"), node.int_list("pads")
    if (
        node.op != "MaxPool"
        or len(node.outputs) != 1
        or len(kernel) != 2
        or not node.attributes.keys() <= _PLAIN
    ):
        return 0
    side = kernel[0]
    centred = side > 1 and side % 2 and kernel[1] == side and pads == [side // 2] * 4
    single = {*node.int_list("strides"), *node.int_list("dilations")} <= {1}
    plain = not node.whole("ceil_mode") and not node.whole("storage_order") and not node.pads_itself
    # onnxruntime fuses quantized pools with their neighbours, which a second reader would prevent.
    quantized = any(reader.op == "QuantizeLinear" for reader in graph.readers.get(node.outputs[0], ()))
    return side if centred and single and plain and not quantized else 0
