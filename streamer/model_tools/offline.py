"""onnxruntime's own optimisation, done once and written down, so that a start need not repeat it."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from inference.core.errors import ModelRefused
from inference.engine.validation_run import reason_of

_LOG_FATAL = 4


def optimise_offline(source: Path, target: Path, *, fused: bool) -> None:
    """Write what onnxruntime makes of ``source`` to ``target``.

    Always folds constants and removes what does nothing. ``fused`` also merges nodes in ways that the CPU
    provider alone understands; layouts for the processor at hand are left to the start, as another
    processor could not run them. Raises ModelRefused.
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
            expected="a model that onnxruntime can optimise",
            found=reason_of(error),
            fix="`streamer models check` says more; export it again.",
        ) from error
