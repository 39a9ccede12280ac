"""Which layers suffer most from 8 bits: each is rounded alone, and the error is measured at the outputs.

All roundings stand in one graph, behind a switch that is one more input, so nothing is built or loaded anew
for each layer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from inference.models.family import Layout
from inference.models.model import Family
from streamer.model_tools.feeds import Feeds
from streamer.model_tools.graph import write_graph
from streamer.model_tools.ranges import Range
from streamer.model_tools.session import open_session
from streamer.model_tools.switched import SWITCH, switched

Arrays = Sequence[npt.NDArray[Any]]

#: A large model is ranked by fewer pictures, to take about this long at most, seconds.
_BUDGET_S = 120.0


def rank_layers(
    model: ModelProto,
    layers: Sequence[str],
    ranges: Mapping[str, Range],
    feeds: Sequence[Feeds],
    layout: Layout,
    *,
    draft: Path,
    on_layer: Callable[[int], None],
) -> list[str]:
    """Return the names of ``layers``, the most sensitive first.

    ``draft`` is a path that may be written to. ``on_layer`` hears how many are done.
    """
    write_graph(switched(model, layers, ranges), draft)
    session = open_session(draft)
    names = list(layout.outputs)

    def run(layer: int) -> list[list[npt.NDArray[np.float64]]]:
        switch = {SWITCH: np.array(layer, np.int64)}
        return [groups_of(layout, session.run(names, feed | switch)) for feed in kept]

    kept = feeds[:1]
    begun = time.perf_counter()
    run(-1)
    each_s = time.perf_counter() - begun
    kept = feeds[: max(1, int(_BUDGET_S / (each_s * len(layers))))]
    truth = run(-1)
    errors = []
    for index, name in enumerate(layers):
        errors.append((_error(truth, run(index)), name))
        on_layer(index + 1)
    return [name for _, name in sorted(errors, key=lambda item: -item[0])]


def groups_of(layout: Layout, outputs: Arrays) -> list[npt.NDArray[np.float64]]:
    """Return boxes and scores apart: errors of pixels and of shares of 1 must not be added up."""
    arrays = [np.asarray(array, np.float64) for array in outputs]
    match layout.family:
        case Family.YOLO:
            return [arrays[0][:, :4], arrays[0][:, 4:]]
        case Family.YOLOX | Family.YOLOV5 | Family.YOLO_END2END:
            return [arrays[0][..., :4], arrays[0][..., 4:]]
    return arrays


def _error(truth: Sequence[Arrays], found: Sequence[Arrays]) -> float:
    """Return the squared error of each group in parts of its variance, added up; infinite where it is NaN."""
    total = 0.0
    for true_groups, found_groups in zip(truth, found, strict=True):
        for true, other in zip(true_groups, found_groups, strict=True):
            if true.shape != other.shape:
                return float("inf")  # another number of rows
            total += float(np.mean((true - other) ** 2) / max(float(np.var(true)), 1e-12))
    return total if np.isfinite(total) else float("inf")
