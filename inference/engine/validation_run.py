"""Validation runs of a loaded model: whether it runs, and whether its outputs can be served."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt

from inference.core.errors import InferenceError, ModelRefused
from inference.engine.buffers import sizes_of
from inference.graph.head import Head
from inference.models.signature import EXPORT, ImageInput

Arrays = dict[str, npt.NDArray[Any]]


def feeds_of(image: ImageInput, batch: int) -> Arrays:
    """Return inputs with a gradient, because a plain grey image could hide a fault of the graph."""
    brightest = 0.9 if image.raw_name is None else 230
    ramp = np.linspace(0, brightest, image.height * image.width * 3, dtype=np.float32)
    frame = ramp.reshape(1, *image.frame_shape).astype(image.dtype)
    feeds: Arrays = {image.feed_name: np.repeat(frame, batch, axis=0)}
    if image.sizes_name is not None:
        feeds[image.sizes_name] = sizes_of(image, batch)
    return feeds


def try_batch(session: Any, path: str, image: ImageInput, batch: int, head: Head | None = None) -> Arrays:
    """Run ``batch`` frames and return the outputs by name. ``head`` is the opened head of the model, if any.

    Raises ModelRefused when the run fails, or when an output of the file does not have one row for each frame
    or contains NaN.
    """
    try:
        arrays = session.run(None, feeds_of(image, batch))
        outputs = {output.name: array for output, array in zip(session.get_outputs(), arrays, strict=True)}
        whole = declared(outputs, head)
    except Exception as error:
        raise batch_refusal(path, image, batch, error) from error
    for name, array in whole.items():
        _check(path, name, array, batch)
    return outputs


def declared(outputs: Arrays, head: Head | None) -> Arrays:
    """Return the outputs that the file declares, computed from the outputs of a model with an opened head."""
    return outputs if head is None else {head.name: head.join([outputs[name] for name in head.branches])}


def _check(path: str, name: str, array: object, batch: int) -> None:
    if not isinstance(array, np.ndarray) or array.ndim < 1 or array.shape[0] != batch:
        raise ModelRefused(
            path,
            expected=f"outputs that begin with the batch, {batch} for {batch} frame{'s' * (batch > 1)}",
            found=f"`{name}` {list(array.shape) if isinstance(array, np.ndarray) else type(array).__name__}",
            fix=EXPORT + ", one row of outputs for each frame.",
        )
    if np.issubdtype(array.dtype, np.floating) and np.isnan(array).any():
        raise ModelRefused(
            path,
            expected="finite outputs for a plain image",
            found=f"NaN in `{name}`",
            fix="The weights are damaged or overflow in half precision: export with `half=False`.",
        )


def batch_refusal(path: str, image: ImageInput, batch: int, error: Exception) -> InferenceError:
    """Return the refusal for a run of ``batch`` frames that raised ``error``."""
    if isinstance(error, InferenceError):
        return error
    return ModelRefused(
        path,
        expected=f"a run with {batch} frame{'s' * (batch > 1)} of {image.width}x{image.height} to succeed",
        found=reason_of(error),
        fix='Set "batch_max": 1 in the manifest, or export with a batch that is really dynamic.'
        if image.batch is None and batch > 1
        else EXPORT + "; where the size is dynamic, set `input` in the manifest.",
    )


def reason_of(error: Exception) -> str:
    """Return the message of onnxruntime in one line, without its prefixes and source locations."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : (\w+) : (Load model from .*? failed: ?)?", r"\1: ", text)
    text = re.sub(r"Name:'[^']*' Status Message: (/\S+ onnxruntime::.*? const&\)? ?)?", "", text).rstrip(". ")
    if text.startswith("INVALID_PROTOBUF"):
        text += " (the file is truncated, damaged or not ONNX)"
    return text if len(text) <= 300 else text[:297] + "..."
