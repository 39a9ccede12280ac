"""Chains the parallel max-pools of a spatial pyramid, because a chain of small ones finds the same maxima.

YOLOX, YOLOv4, YOLOv7 and YOLOv5 up to 5.0 pool one tensor with windows of 5, 9 and 13 pixels. The maximum of
9 is the maximum of 5 of the maxima of 5: fewer comparisons and the very same numbers, some 0.2 of the 12 ms
of YOLOX-nano (bench/model_side.py).
"""

from __future__ import annotations

from collections.abc import Iterator

from inference.graph.onnx_graph import Node, OnnxGraph, make_node

#: Attributes of a plain pool; one with others is left alone.
_PLAIN = frozenset(("kernel_shape", "pads", "strides", "dilations", "ceil_mode", "storage_order", "auto_pad"))


def chain_pools(graph: OnnxGraph) -> bool:
    """Let pools of one tensor pool each other, the smallest first; returns whether there were any."""
    changed = False
    for source, pools in _pyramids(graph):
        chain: list[Node] = []
        below, kernel = source, 1
        for wanted, pool in sorted(pools.items()):
            # A window of `wanted` is covered by windows of `kernel` that lie this far apart at most.
            side = wanted - kernel + 1
            pads = [side // 2] * 4
            chain.append(make_node("MaxPool", below, pool.outputs[0], kernel_shape=[side] * 2, pads=pads))
            below, kernel = pool.outputs[0], wanted
        graph.replace(list(pools.values()), chain)
        changed = True
    return changed


def _pyramids(graph: OnnxGraph) -> Iterator[tuple[str, dict[int, Node]]]:
    """Yield each tensor that several pools of different windows read, and these pools by window."""
    for source, readers in graph.readers.items():
        pools = [(window, node) for node in readers if (window := _window(graph, node))]
        if len(pools) > 1 and len(dict(pools)) == len(pools):
            yield source, dict(pools)


def _window(graph: OnnxGraph, node: Node) -> int:
    """Return the side of a pool that keeps the size of its picture; 0 for everything else."""
    kernel, pads = node.wholes("kernel_shape"), node.wholes("pads")
    if (
        node.op != "MaxPool"
        or len(node.outputs) != 1
        or len(kernel) != 2
        or not node.attributes.keys() <= _PLAIN
    ):
        return 0
    side = kernel[0]
    centred = side > 1 and side % 2 and kernel[1] == side and pads == [side // 2] * 4
    single = {*node.wholes("strides"), *node.wholes("dilations")} <= {1}
    plain = not node.whole("ceil_mode") and not node.whole("storage_order") and not node.pads_itself
    # Quantized pools are fused with what stands around them, which a second reader would prevent.
    quantized = any(reader.op == "QuantizeLinear" for reader in graph.readers.get(node.outputs[0], ()))
    return side if centred and single and plain and not quantized else 0
