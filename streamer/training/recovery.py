"""Recovers the trainer's network from an ONNX file that it exported, with exactly the same outputs.

The exporter merges each batch normalisation into the convolution before it. The recovered network has the
merged weights, and normalisations that change nothing; `calibrate` makes them real ones that still change
nothing, so that training can continue. Convolutions are matched by their order and shapes, because their
names do not survive tools that rewrite graphs; the outputs for random pictures decide whether the match is
right.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from streamer.training.errors import NotRecoverable
from streamer.training.network import Detector, Exported, Shape, Unit

#: Convolutions of a network, apart from those in the `depth` blocks of its three deep stages, and those of a
#: block.
_FIXED_CONVOLUTIONS, _CONVOLUTIONS_PER_DEPTH = 59, 6
_CONVOLUTIONS_WITHOUT_RELU = 6
_MAX_DEPTH = 16
#: Largest differences that count as rounding: boxes in pixels, scores in 0..1.
_BOX_TOLERANCE, _SCORE_TOLERANCE = 0.05, 1e-3
_TESTED_PICTURES = 2


@dataclass(frozen=True, slots=True)
class Recovered:
    """A network in evaluation mode, and what its file says about it."""

    network: Detector
    #: Input side in pixels.
    side: int
    labels: tuple[str, ...]
    #: Lower-case hex digest of the file.
    sha256: str


@dataclass(frozen=True, slots=True)
class _Convolution:
    weight: np.ndarray[Any, np.dtype[np.float32]]
    bias: np.ndarray[Any, np.dtype[np.float32]] | None


def recover(path: Path) -> Recovered:
    """Return the network of an ONNX file. Raises NotRecoverable, or OSError when the file cannot be read."""
    data = path.read_bytes()
    try:
        model = onnx.load_from_string(data)
    except Exception as error:  # the parser has no error class of its own
        raise NotRecoverable(f"{path}: expected an ONNX file; found something that does not parse") from error
    found = _convolutions(path, model.graph)
    shape, classes = _shape_of(path, model.graph, found)
    network = Detector(shape, classes)
    _fill(path, network, found)
    side = _side_of(path, model.graph)
    _compare(path, data, network, side)
    return Recovered(network.eval(), side, _labels(model, classes), hashlib.sha256(data).hexdigest())


@torch.no_grad()
def calibrate(network: Detector, images: Tensor) -> None:
    """Give the normalisations the statistics of images (n, 3, h, w), RGB in 0..1, without changing outputs.

    A recovered network has normalisations with mean 0 and variance 1, which training would replace by the
    true statistics within some steps, and thereby change what the network computes.
    """

    def settle(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.BatchNorm2d)  # noqa: S101 - registered on these alone
        values = inputs[0].float()
        mean, variance = values.mean((0, 2, 3)), values.var((0, 2, 3), unbiased=False)
        scale = module.weight / torch.sqrt(module.running_var + module.eps)
        shift = module.bias - module.running_mean * scale
        module.running_mean.copy_(mean)
        module.running_var.copy_(variance)
        module.weight.copy_(scale * torch.sqrt(variance + module.eps))
        module.bias.copy_(shift + mean * scale)

    network.eval()
    hooks = [
        module.register_forward_pre_hook(settle)
        for module in network.modules()
        if isinstance(module, nn.BatchNorm2d)
    ]
    try:
        network(images)
    finally:
        for hook in hooks:
            hook.remove()


def with_classes(network: Detector, known: Sequence[str], wanted: Sequence[str]) -> Detector:
    """Return a network for other classes: it keeps all weights, and the rows of classes of the same name."""
    made = Detector(network.shape, len(wanted))
    weights = network.state_dict()
    fresh = made.state_dict()
    for name in [name for name in weights if ".to_classes." in name]:
        for row, label in enumerate(wanted):
            if label in known:
                fresh[name][row] = weights[name][known.index(label)]
        weights[name] = fresh[name]
    made.load_state_dict(weights)
    return made


def _convolutions(path: Path, graph: Any) -> list[_Convolution]:
    """Return the convolutions of a graph in the order of execution."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            tensors[node.output[0]] = node.attribute[0].t
        elif node.op_type == "Identity" and node.input[0] in tensors:
            # The exporter stores equal weights once.
            tensors[node.output[0]] = tensors[node.input[0]]
    found = []
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        values = [tensors.get(name) for name in node.input[1:] if name]
        if not values or any(value is None for value in values):
            raise NotRecoverable(
                f"{path}: expected convolutions with constant float32 weights; found `{node.name}` with "
                "weights that are computed, as in a file with 8-bit weights"
            )
        arrays = [np.array(numpy_helper.to_array(value)) for value in values]
        if any(array.dtype != np.float32 for array in arrays):
            raise NotRecoverable(
                f"{path}: expected float32 weights; found {arrays[0].dtype} in `{node.name}`. Use the file "
                "from which this one was made"
            )
        found.append(_Convolution(arrays[0], arrays[1] if len(arrays) > 1 else None))
    return found


def _shape_of(path: Path, graph: Any, found: Sequence[_Convolution]) -> tuple[Shape, int]:
    """Return sizes and number of classes of the only network that the convolutions may come from."""
    depth, rest = divmod(len(found) - _FIXED_CONVOLUTIONS, _CONVOLUTIONS_PER_DEPTH)
    kinds = Counter(node.op_type for node in graph.node)
    if rest or not 1 <= depth <= _MAX_DEPTH or kinds["Relu"] != len(found) - _CONVOLUTIONS_WITHOUT_RELU:
        raise NotRecoverable(
            f"{path}: expected the network of `streamer train`, with {_FIXED_CONVOLUTIONS} + "
            f"{_CONVOLUTIONS_PER_DEPTH} n convolutions and ReLU; found {_summary(found, kinds)}"
        )
    out = [convolution.weight.shape[0] for convolution in found]
    stage = 3 + 2 * depth
    deep = 6 + 3 * stage  # the first convolution after the last stage, which pools
    ends = [5, 6 + stage - 1, 6 + 2 * stage - 1, deep + 1]
    neck = deep + 2
    head = neck + 18
    shape = Shape(
        stem=out[0],
        widths=(out[ends[0]], out[ends[1]], out[ends[2]], out[ends[3]]),
        depth=depth,
        neck=(out[neck + 7], out[neck + 12], out[neck + 17]),
        head=out[head],
    )
    return shape, out[head + 3]


def _summary(found: Sequence[_Convolution], kinds: Counter[str]) -> str:
    names = ("Relu", "Sigmoid", "LeakyRelu", "HardSwish", "Gelu", "Softmax", "MatMul")
    others = ", ".join(f"{kinds[name]} {name}" for name in names if kinds[name])
    return f"{len(found)} convolutions" + (f", {others}" if others else "")


def _fill(path: Path, network: Detector, found: Iterable[_Convolution]) -> None:
    """Copy the weights into the network, whose modules are defined in the order of execution."""
    for (name, convolution, normalisation), given in zip(_slots(network), found, strict=True):
        if tuple(convolution.weight.shape) != given.weight.shape or given.bias is None:
            raise NotRecoverable(
                f"{path}: expected weights of shape {tuple(convolution.weight.shape)} for `{name}` of the "
                f"network of `streamer train`; found {given.weight.shape}"
                f"{'' if given.bias is not None else ' without a bias'}"
            )
        convolution.weight.data = torch.from_numpy(given.weight)
        bias = torch.from_numpy(given.bias)
        if normalisation is None:
            assert convolution.bias is not None  # noqa: S101 - only units have none
            convolution.bias.data = bias
        else:
            normalisation.running_var.fill_(1 - normalisation.eps)
            normalisation.bias.data = bias


def _slots(network: Detector) -> list[tuple[str, nn.Conv2d, nn.BatchNorm2d | None]]:
    """Return name, convolution and normalisation in the order of execution."""
    order: list[nn.Module] = []
    hooks = [
        module.register_forward_hook(lambda module, *_: order.append(module))
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
    ]
    network.eval()
    with torch.no_grad():
        network(torch.zeros(1, 3, 64, 64))
    for hook in hooks:
        hook.remove()
    names = {module: name for name, module in network.named_modules()}
    followers = {unit[0]: unit[1] for unit in network.modules() if isinstance(unit, Unit)}
    return [(names[module], module, followers.get(module)) for module in order]


def _side_of(path: Path, graph: Any) -> int:
    sides = [dimension.dim_value for dimension in graph.input[0].type.tensor_type.shape.dim][2:]
    if len(sides) != 2 or sides[0] != sides[1] or sides[0] <= 0 or sides[0] % 32:
        raise NotRecoverable(
            f"{path}: expected an input of n x n pixels, with n divisible by 32; "
            f"found {sides or 'no fixed size'}"
        )
    return int(sides[0])


def _compare(path: Path, data: bytes, network: Detector, side: int) -> None:
    """Raise NotRecoverable unless the network computes what the file computes."""
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    expected = Exported(network, side).eval()
    images = torch.rand(_TESTED_PICTURES, 3, side, side, generator=torch.Generator().manual_seed(0))
    for image in images[:, None]:
        with torch.no_grad():
            ours = expected(image).numpy()
        theirs = session.run(None, {session.get_inputs()[0].name: image.numpy()})[0]
        if theirs.shape != ours.shape:
            raise NotRecoverable(f"{path}: expected an output of shape {ours.shape}; found {theirs.shape}")
        boxes = float(np.abs(theirs[:, :4] - ours[:, :4]).max())
        scores = float(np.abs(theirs[:, 4:] - ours[:, 4:]).max())
        if boxes > _BOX_TOLERANCE or scores > _SCORE_TOLERANCE:
            raise NotRecoverable(
                f"{path}: its weights have the shapes of the network of `streamer train`, but its outputs "
                f"differ by {boxes:.3g} px and {scores:.3g} in scores"
            )


def _labels(model: Any, classes: int) -> tuple[str, ...]:
    entries = {entry.key: entry.value for entry in model.metadata_props}
    try:
        names = json.loads(entries.get("names", "{}"))
        return tuple(str(names.get(str(index), f"class_{index}")) for index in range(classes))
    except (ValueError, AttributeError):
        return tuple(f"class_{index}" for index in range(classes))
