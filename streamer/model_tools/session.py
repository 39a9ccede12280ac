"""Bare onnxruntime sessions for graphs that are no models yet: opened, switched and half-built ones."""

from __future__ import annotations

import os
from pathlib import Path

import onnxruntime

_LOG_FATAL = 4


def open_session(path: Path, *, optimised: bool = True) -> onnxruntime.InferenceSession:
    """Return a session over all cores. Not ``optimised``, every tensor of the graph can be asked for."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    # Beside a busy process, threads that spin take twice as long.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = _LOG_FATAL
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
