"""Sessions of ONNX Runtime outside of the service: for graphs under construction, and to optimise a file."""

from __future__ import annotations

import os
from pathlib import Path

import onnxruntime

from inference.core.errors import ModelRefused
from inference.engine.validation_run import reason_of

_LOG_FATAL = 4


def open_session(path: Path, *, optimised: bool = True) -> onnxruntime.InferenceSession:
    """Return a session on all cores. Unless it is ``optimised``, it can return every tensor of the graph."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    # Spinning threads double the time on a machine that is busy otherwise.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = _LOG_FATAL
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def optimise_offline(source: Path, target: Path, *, fused: bool) -> None:
    """Write the graph of ``source``, as ONNX Runtime optimises it, to ``target``.

    This folds constants and removes redundant nodes. ``fused`` also merges nodes to operators that only the
    CPU provider has. Memory layouts for the processor are left to each start, because another processor could
    not run them. Raises ModelRefused.
    """
    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = levels.ORT_ENABLE_EXTENDED if fused else levels.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.log_severity_level = _LOG_FATAL
    try:
        onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelRefused(
            str(source),
            expected="a model that ONNX Runtime can optimise",
            found=reason_of(error),
            fix="Run `streamer models check` for details, or export it again.",
        ) from error
