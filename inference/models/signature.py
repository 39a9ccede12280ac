"""Checks the declared inputs and metadata of a graph; `family` judges its actual outputs."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from inference.core.errors import ModelRefused
from inference.models.exporters import advice
from inference.models.fields import MAX_INPUT_PX, MIN_INPUT_PX
from inference.models.manifest import Manifest

#: Used when height and width are dynamic and neither manifest nor metadata names a size.
DEFAULT_INPUT_PX = 640
#: RT-DETR and D-FINE exports have a second input: the size to which they scale their boxes.
SIZES_INPUT = "orig_target_sizes"
#: onnxruntime's names of the element types that an image input may have.
FLOAT = "tensor(float)"
HALF = "tensor(float16)"
BYTES = "tensor(uint8)"
#: Allowed numbers of colour planes: 3 for colour, 1 for grey.
_PLANES = (3, 1)
_SHAPES = (
    "the image input to be [batch, planes, height, width] or [batch, height, width, planes], 3 planes or 1"
)


@dataclass(frozen=True, slots=True)
class Tensor:
    """Describes a declared input or output; None in ``shape`` stands for a dynamic dimension."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """Holds inputs, outputs and metadata, as declared in the file."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ImageInput:
    """Describes the input that takes frames."""

    #: Name in the file. The session may have another input instead, with another type (`raw_name`).
    name: str
    #: Whether the input in the file is float16.
    half: bool
    #: Size of the batch in the file; None if it is dynamic, so that a run takes any number of frames.
    batch: int | None
    width: int
    height: int
    #: Name of the second input, which takes ``[width, height]`` of each frame as int64, or None.
    sizes_name: str | None
    #: Colour planes: 3, or 1 for grey.
    planes: int = 3
    #: Whether the planes are the last dimension (NHWC).
    channels_last: bool = False
    #: Whether the graph takes pixels of 0 to 255 as uint8.
    takes_bytes: bool = False
    #: The patches in which the session takes images, as in `Stem`; empty where it takes whole images.
    patches: tuple[tuple[int, int], ...] = ()
    #: Name of the input that takes frames as uint8, see `gpu_model`; None if the session has none.
    raw_name: str | None = None

    @property
    def feed_name(self) -> str:
        """Name of the session's input that takes frames."""
        return self.raw_name or self.name

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """Shape of one frame in the input of the session."""
        if self.raw_name is not None:
            return self.height, self.width, 3
        if self.patches:
            return 3 * len(self.patches), self.height // 2, self.width // 2
        if self.channels_last:
            return self.height, self.width, self.planes
        return self.planes, self.height, self.width

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type of the input of the session."""
        if self.raw_name is not None or self.takes_bytes:
            return np.dtype(np.uint8)
        return np.dtype(np.float16 if self.half else np.float32)


def image_input(path: str, graph: Graph, manifest: Manifest) -> ImageInput:
    """Return the image input and its size. Raises ModelRefused when the graph cannot take frames."""
    _check_task(path, graph.metadata)
    sizes = [tensor for tensor in graph.inputs if tensor.name == SIZES_INPUT]
    images = [tensor for tensor in graph.inputs if tensor.name != SIZES_INPUT]
    if len(images) != 1:
        raise _refusal(path, f"one image input, and at most `{SIZES_INPUT}` beside it", _listed(graph.inputs))
    image = images[0]
    if image.dtype not in (FLOAT, HALF, BYTES):
        raise _refusal(path, f"the image input to be {FLOAT}, {HALF} or {BYTES}", _listed([image]))
    if len(image.shape) != 4:
        raise _refusal(path, _SHAPES, _listed([image]))
    channels_last = image.shape[3] in _PLANES and image.shape[1] not in _PLANES
    batch, planes, height, width = image.shape
    if channels_last:
        batch, height, width, planes = image.shape
    if planes not in (*_PLANES, None):
        raise _refusal(path, _SHAPES, _listed([image]))
    if batch is not None and batch < 1:
        raise _refusal(path, "a batch of at least 1", _listed([image]))
    if sizes and (sizes[0].dtype != "tensor(int64)" or len(sizes[0].shape) != 2):
        raise _refusal(path, f"`{SIZES_INPUT}` to be tensor(int64) [batch, 2]", _listed(sizes))
    width, height = _input_size(path, width, height, graph.metadata, manifest)
    return ImageInput(
        image.name,
        image.dtype == HALF,
        batch,
        width,
        height,
        sizes[0].name if sizes else None,
        planes=planes or 3,
        channels_last=channels_last,
        takes_bytes=image.dtype == BYTES,
    )


def _input_size(
    path: str, width: int | None, height: int | None, metadata: Mapping[str, str], manifest: Manifest
) -> tuple[int, int]:
    wanted_width, wanted_height = manifest.input or _metadata_size(metadata) or (DEFAULT_INPUT_PX,) * 2
    if manifest.input is not None and (width or wanted_width, height or wanted_height) != manifest.input:
        raise ModelRefused(
            path,
            expected=f"an input of {wanted_width}x{wanted_height}, as the manifest's `input` says",
            found=f"{width or 'any'}x{height or 'any'} fixed in the graph",
            fix="Remove `input` from the manifest, or export with a dynamic size (`dynamic=True`).",
        )
    size = width or wanted_width, height or wanted_height
    if not all(MIN_INPUT_PX <= side <= MAX_INPUT_PX for side in size):
        raise _refusal(
            path, f"an input of {MIN_INPUT_PX} to {MAX_INPUT_PX} pixels a side", f"{size[0]}x{size[1]}"
        )
    return size


def _metadata_size(metadata: Mapping[str, str]) -> tuple[int, int] | None:
    """Return width and height from ``imgsz``, which is written as ``[height, width]`` or one number."""
    try:
        value = ast.literal_eval(metadata.get("imgsz", "")[:100])
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    sides = value if isinstance(value, list | tuple) else (value, value)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        return None
    return sides[1], sides[0]


def _check_task(path: str, metadata: Mapping[str, str]) -> None:
    task = metadata.get("task", "detect")
    if task != "detect":
        raise ModelRefused(
            path,
            expected="a detection model",
            found=f"task `{task[:40]}` in its metadata",
            fix="Train or choose a `detect` model: its outputs are boxes with a class, nothing else.",
        )


def _listed(tensors: tuple[Tensor, ...] | list[Tensor]) -> str:
    return (
        "; ".join(
            f"`{tensor.name}` {tensor.dtype} "
            + "["
            + ", ".join("dynamic" if side is None else str(side) for side in tensor.shape)
            + "]"
            for tensor in tensors[:8]
        )
        or "none"
    )


def _refusal(path: str, expected: str, found: str) -> ModelRefused:
    return ModelRefused(path, expected=expected, found=found, fix=advice(path) + ".")
