"""Runs a model on pictures with all its activations opened, and counts the numbers in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, helper

from streamer.model_tools.feeds import Feeds
from streamer.model_tools.graph import write_graph
from streamer.model_tools.ranges import Activations
from streamer.model_tools.session import open_session


def calibrate(
    model: ModelProto,
    tensors: Sequence[str],
    feeds: Callable[[], Iterator[Feeds]],
    *,
    draft: Path,
) -> Activations:
    """Return the histograms of ``tensors``, activations or inputs, over the pictures that ``feeds`` yields.

    They are run twice: the histograms need the extremes. ``draft`` is a path that may be written to.
    """
    inputs = {value.name for value in model.graph.input}
    opened = [name for name in tensors if name not in inputs]
    write_graph(_opened(model, opened), draft)
    # Optimising would merge the very activations that are asked for.
    session = open_session(draft, optimised=False)

    def run(feed: Feeds) -> dict[str, npt.NDArray[np.float32]]:
        arrays = dict(zip(opened, session.run(opened, feed), strict=True))
        return arrays | {name: feed[name] for name in tensors if name in inputs}

    activations = Activations(tensors)
    for feed in feeds():
        activations.widen(run(feed))
    for feed in feeds():
        activations.count(run(feed))
    return activations


def _opened(model: ModelProto, tensors: Sequence[str]) -> ModelProto:
    """Return the model with these activations among its outputs."""
    copy = ModelProto()
    copy.CopyFrom(model)
    there = {value.name for value in copy.graph.output}
    copy.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in tensors if name not in there
    )
    return copy
