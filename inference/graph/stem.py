"""Removes the space-to-depth stem of a model, so that `Preprocessor` arranges the pixels instead.

YOLOX and YOLOv5 up to 5.0 begin with `Focus`, which concatenates four strided slices of the image as
channels. onnxruntime reads the float image twice for that, which takes some 0.5 of the 7 ms of YOLOX-nano on
a CPU. `Preprocessor` has to convert each frame from uint8 anyway, and arranging the pixels at the same time
takes 0.05 ms (bench/model_side.py). The input of the first convolution is the same, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass

from inference.graph.onnx_graph import Node, OnnxGraph, Shape, make_node, shape_of

#: Rows and columns of the pixels of a 2x2 block. Each patch holds one of them; their order may vary.
_CORNERS = [(0, 0), (0, 1), (1, 0), (1, 1)]
#: Exports write "to the end" as the largest int64 or int32.
_TO_THE_END = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class Stem:
    """Describes a removed stem. The model now takes patches, (batch, 3 * 4, height / 2, width / 2)."""

    #: For each patch, in order, the row and column (0 or 1) of its pixels in every block of 2x2.
    patches: tuple[tuple[int, int], ...]
    #: The image input, and the shape that the file declares for it.
    image: str
    shape: Shape


def take_stem(graph: OnnxGraph) -> Stem | None:
    """Remove the space-to-depth stem from ``graph``. Returns None and changes nothing when there is none."""
    traced = ((node, _trace(graph, node)) for node in graph.nodes if node.op == "Concat")
    concat, stem = next(((node, found) for node, found in traced if found is not None), (None, None))
    if concat is None or stem is None:
        return None
    batch, _, height, width = stem.shape
    graph.declare_input(stem.image, (batch, 12, height and height // 2, width and width // 2))
    # The tensor keeps its name for its readers. onnxruntime removes the Identity node.
    graph.replace([concat], [make_node("Identity", stem.image, concat.outputs[0])])
    return stem


def _trace(graph: OnnxGraph, concat: Node) -> Stem | None:
    """Trace the concatenated tensors back to the image input.

    Returns None unless the four patches are the corners of every 2x2 block and nothing else reads the image.
    """
    if concat.whole("axis") not in (1, -3) or len(concat.outputs) != 1:
        return None
    images: set[str] = set()
    patches: list[tuple[int, int]] = []
    slices: list[Node] = []
    for branch in concat.inputs:
        name, first, step = branch, [0, 0], [1, 1]
        # Every accepted slice doubles a step. So the loop also ends in a damaged file in which a node feeds
        # itself.
        while step != [2, 2]:
            node = graph.makers.get(name)
            cuts = _cuts(graph, node) if node is not None else []
            if node is None or not cuts or max(step) > 2:
                return None
            for axis, start, stride in cuts:
                first[axis] += start * step[axis]
                step[axis] *= stride
            slices.append(node)
            name = node.inputs[0]
        images.add(name)
        patches.append((first[0], first[1]))
    if len(images) != 1 or sorted(patches) != _CORNERS:
        return None
    (image,) = images
    gone = {id(node) for node in (concat, *slices)}
    read = [image, *(name for node in slices for name in node.outputs)]
    kept = any(id(reader) not in gone for name in read for reader in graph.readers.get(name, ()))
    if (
        kept
        or image not in graph.inputs
        or image in graph.tensors
        or not graph.outputs.keys().isdisjoint(read)
    ):
        return None
    shape = shape_of(graph.inputs[image])
    # A model with this stem has even sides, and only models with three planes are supported.
    if len(shape) != 4 or shape[1] not in (3, None) or any(side and side % 2 for side in shape[2:]):
        return None
    return Stem(tuple(patches), image, shape)


def _cuts(graph: OnnxGraph, node: Node) -> list[tuple[int, int, int]]:
    """Return axis (0 rows, 1 columns), start and step of each cut if a node takes every second row or column.

    Return an empty list if the node does anything else.
    """
    if node.op != "Slice" or len(node.inputs) != 5:
        return []
    starts, ends, axes, steps = (graph.constant(name) for name in node.inputs[1:])
    if not len(starts) == len(ends) == len(axes) == len(steps):
        return []
    cuts = [(axis % 4 - 2, start, step) for axis, start, step in zip(axes, starts, steps, strict=True)]
    fit = all(axis in (0, 1) and start in (0, 1) and step == 2 for axis, start, step in cuts)
    return cuts if fit and all(end >= _TO_THE_END for end in ends) else []
