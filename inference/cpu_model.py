"""What onnxruntime loads on a CPU in place of a file: the same model with less to do around its layers.

Each edit leaves the numbers as they are; `stem`, `pools` and `head` say what it gains.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from inference.head import Head, open_head
from inference.onnx_graph import OnnxGraph
from inference.pools import chain_pools
from inference.stem import Stem, take_stem

#: Larger files are left as they are: the edited model is held in memory while it is loaded.
_MAX_BYTES = 512 << 20


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
        if not 0 < path.stat().st_size <= _MAX_BYTES:
            return None
        with path.open("rb") as stream:
            # Unmapped when the last view of it is gone, which an exception may keep for a while.
            view = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
        graph = OnnxGraph(view)
        if graph.entangled:
            return None
        stem = take_stem(graph)
        chained = chain_pools(graph)
        head = open_head(graph) if opened else None
        return CpuModel(graph.write(), stem, head) if stem or chained or head else None
    except (OSError, ValueError, struct.error):
        return None
