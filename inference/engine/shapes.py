"""Derives the batch sizes to serve, the fixed output shapes and the TensorRT profile from a graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from inference.engine.buffers import Shapes
from inference.graph.cpu_model import CpuModel
from inference.models.layout import Layout, OutputForm
from inference.models.model import Family
from inference.models.signature import Graph, ImageInput, Tensor


def batch_sizes(static_batch: int | None, batch_max: int) -> tuple[int, ...]:
    """Return the batch sizes to serve: powers of two, or the fixed size in the file."""
    if static_batch is not None:
        return (static_batch,)
    return tuple(1 << power for power in range(batch_max.bit_length()))


def fixed_shapes(
    graph: Graph, layout: Layout, names: Sequence[str], outputs: dict[str, npt.NDArray[np.generic]]
) -> Shapes:
    """Return shape (without the batch) and type of the outputs whose size is the same for every frame.

    The size of a dense head depends on the input only. Other heads may return a row for each object that they
    find, unless the file declares a fixed number of rows.
    """
    dense = layout.family in (Family.YOLO, Family.YOLOV5, Family.YOLOX) or layout.form is OutputForm.SPLIT
    if layout.form is OutputForm.FLAT:
        return {}
    fixed = {tensor.name: None not in tensor.shape[1:] for tensor in graph.outputs}
    return {name: (outputs[name].shape[1:], outputs[name].dtype) for name in names if dense or fixed[name]}


def shape_profile(image: ImageInput, batch_max: int) -> tuple[str, str] | None:
    """Return the smallest and largest input that TensorRT builds an engine for; None for a fixed batch."""
    if image.batch is not None:
        return None
    largest = batch_sizes(None, batch_max)[-1]
    shape = "x".join(map(str, image.frame_shape))
    return f"{image.name}:1x{shape}", f"{image.name}:{largest}x{shape}"


def graph_of(session: Any, edited: CpuModel | None = None) -> Graph:
    """Return the declarations of the file from which the session, or ``edited``, was made."""

    def tensors(nodes: Sequence[Any]) -> tuple[Tensor, ...]:
        return tuple(
            Tensor(
                node.name, node.type, tuple(side if isinstance(side, int) else None for side in node.shape)
            )
            for node in nodes
        )

    inputs = tensors(session.get_inputs())
    outputs = tensors(session.get_outputs())
    if edited is not None and edited.stem is not None:
        stem = edited.stem
        inputs = tuple(
            dataclasses.replace(tensor, shape=stem.shape) if tensor.name == stem.image else tensor
            for tensor in inputs
        )
    if edited is not None and edited.head is not None:
        outputs = (Tensor(edited.head.name, outputs[0].dtype, edited.head.shape),)
    return Graph(inputs, outputs, session.get_modelmeta().custom_metadata_map)
