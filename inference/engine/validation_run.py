"""Runs a loaded model to check that it works and that its outputs can be served."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from inference.core.errors import InferenceError, ModelRefused
from inference.engine.buffers import sizes_of
from inference.graph.head import Head
from inference.models.exporters import advice, not_read
from inference.models.family import recognise
from inference.models.labels import given_names
from inference.models.layout import Layout, Probe
from inference.models.manifest import Manifest
from inference.models.query_heads import FLAT_COLUMNS
from inference.models.signature import ImageInput

log = logging.getLogger(__name__)

Arrays = dict[str, npt.NDArray[Any]]

#: Names of the outputs of torchvision's detectors, which have the rows of one image, without a batch.
_TORCHVISION_OUTPUTS = {"boxes", "labels", "scores"}
_NEWEST = "the newest that this onnxruntime reads"
#: Messages of onnxruntime about a file that is too new. The first group is the version that it found, and the
#: last group is the newest version that it supports.
_IR_TOO_NEW = re.compile(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)")
_OPSET_TOO_NEW = re.compile(r"Opset (\d+) is under development.* for domain (\S+) is till opset (\d+)")


def feeds_of(image: ImageInput, batch: int) -> Arrays:
    """Return inputs with a gradient, because a plain grey image could hide a fault of the graph."""
    brightest = 230 if image.dtype == np.uint8 else 0.9
    ramp = np.linspace(0, brightest, math.prod(image.frame_shape), dtype=np.float32)
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
        _check(path, name, array, batch, whole)
    return outputs


def declared(outputs: Arrays, head: Head | None) -> Arrays:
    """Return the outputs that the file declares, computed from the outputs of a model with an opened head."""
    return outputs if head is None else {head.name: head.join([outputs[name] for name in head.branches])}


def _check(path: str, name: str, array: object, batch: int, names: Collection[str]) -> None:
    fits = isinstance(array, np.ndarray) and array.ndim > 0 and (array.shape[0] == batch or _is_flat(array))
    if not isinstance(array, np.ndarray) or not fits:
        raise ModelRefused(
            path,
            expected=f"outputs that begin with the batch, {batch} for {batch} frame{'s' * (batch > 1)}",
            found=f"`{name}` {list(array.shape) if isinstance(array, np.ndarray) else type(array).__name__}",
            fix=f"{not_read('torchvision')}."
            if set(names) >= _TORCHVISION_OUTPUTS
            else advice(path) + ", one row of outputs for each frame.",
        )
    if np.issubdtype(array.dtype, np.floating) and np.isnan(array).any():
        raise ModelRefused(
            path,
            expected="finite outputs for a plain image",
            found=f"NaN in `{name}`",
            fix="The weights are damaged or overflow in half precision: export with `half=False`.",
        )


def _is_flat(array: npt.NDArray[Any]) -> bool:
    """Return whether an output may hold the rows of all frames, which begin with the number of the frame."""
    return array.ndim == 2 and array.shape[1] == FLAT_COLUMNS


def layout_of(
    path: str, outputs: Arrays, image: ImageInput, metadata: Mapping[str, str], manifest: Manifest
) -> Layout:
    """Return the layout of a model by the outputs of a run, and log what users should know about it.

    Raises ModelRefused when they do not show how to read them.
    """
    layout = recognise(_probe_of(path, outputs, image, metadata, manifest))
    if layout.note:
        log.info("%s: %s", path, layout.note)
    return layout


def _probe_of(
    path: str, outputs: Arrays, image: ImageInput, metadata: Mapping[str, str], manifest: Manifest
) -> Probe:
    """Return the outputs of the first frame of a run, as evidence for `recognise`."""
    return Probe(
        path,
        {name: array[array[:, 0] == 0] if _is_flat(array) else array[:1] for name, array in outputs.items()},
        image.width,
        image.height,
        metadata,
        manifest,
        has_sizes_input=image.sizes_name is not None,
        planes=image.planes,
        takes_bytes=image.takes_bytes,
        name_count=len(given_names(manifest, metadata)),
        channels_last=image.channels_last,
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
        else advice(path) + "; where the size is dynamic, set `input` in the manifest.",
    )


def load_refusal(path: str, error: Exception) -> ModelRefused:
    """Return the refusal for a file that onnxruntime cannot load, perhaps because the file is too new."""
    text = " ".join(str(error).split())
    if (match := _IR_TOO_NEW.search(text)) is not None:
        return ModelRefused(
            path,
            expected=f"IR version {match[2]} at most, {_NEWEST}",
            found=f"IR version {match[1]}",
            fix=f"Set `model.ir_version = {match[2]}` with the package onnx and save it again, export it "
            "with an older onnx, or upgrade onnxruntime.",
        )
    if (match := _OPSET_TOO_NEW.search(text)) is not None:
        return ModelRefused(
            path,
            expected=f"opset {match[3]} at most for domain {match[2]}, {_NEWEST}",
            found=f"opset {match[1]}",
            fix=f"{advice(path)}, with opset {match[3]} or older (`opset={match[3]}` for `yolo export`, "
            f"`opset_version={match[3]}` for `torch.onnx.export`), or upgrade onnxruntime.",
        )
    return ModelRefused(
        path,
        expected="an ONNX model that onnxruntime can load",
        found=reason_of(error),
        fix=advice(path) + ", and copy it with its external data, if any, into the same folder.",
    )


def reason_of(error: Exception) -> str:
    """Return the message of onnxruntime in one line, without its prefixes and source locations."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : (\w+) : (Load model from .*? failed: ?)?", r"\1: ", text)
    text = re.sub(r"Name:'[^']*' Status Message: (/\S+ onnxruntime::.*? const&\)? ?)?", "", text).rstrip(". ")
    if text.startswith("INVALID_PROTOBUF"):
        text += " (the file is truncated, damaged or not ONNX)"
    return text if len(text) <= 300 else text[:297] + "..."
