"""What onnxruntime loads on a CPU in place of a file: the same model with less to do around its layers.

Each edit leaves the numbers as they are; `stem`, `pools` and `head` say what it gains.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from inference.graph.head import Head, open_head
from inference.graph.onnx_graph import read_graph
from inference.graph.pools import chain_pools
from inference.graph.stem import Stem, take_stem


@dataclass(frozen=True, slots=True)
class CpuModel:
    """An edited model, and what its inputs and outputs have become."""

    model: bytes
    #: None: it takes pictures as they are.
    stem: Stem | None
    #: None: it gives what the file gives.
    head: Head | None


def read_cpu_model(path: Path, *, opened: bool = True) -> CpuModel | None:
    """Return what to load for an ONNX file; None where there is nothing to gain. ``opened``: with its head.

    Also None where the file is no ONNX file, is damaged, or keeps weights in other files: onnxruntime judges
    those by itself.
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
