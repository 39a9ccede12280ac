"""Makes an 8-bit model whose boxes agree with those of the original.

It calibrates the ranges of activations on images, tries several candidates, and keeps sensitive layers in
float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, helper

from inference.engine.detector import Detector
from streamer.model_tools.comparison import Agreement, compare_boxes, open_detector
from streamer.model_tools.graph import Topology, layers_of, write_graph
from streamer.model_tools.layer_sensitivity import rank_layers
from streamer.model_tools.model_inputs import Feed, FeedBuilder, ImageFiles, open_session
from streamer.model_tools.quantiser import POWERS, ActivationHistograms, Range, plan_of, quantise
from streamer.model_zoo.download_url import BadRequest

#: Fractions of the layers that stay in float32; the search tries them in this order until the boxes agree.
#: YOLOX-nano found 67 % of the boxes with all layers in 8 bits, 92 % with 5 of its 104 layers in float32, and
#: 96 % with 10.
_FLOAT32_SHARES = (0.05, 0.1, 0.2, 0.4)
#: Number of images on which the search calibrates, compares a candidate, and ranks layers. They are evenly
#: spread over the given images.
_CALIBRATED = 64
_TRIED = 32
_RANKED = 4

#: Called with the current step and its progress, 0..1.
OnProgress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Int8Model:
    """Holds the file of an 8-bit model, and its numbers of layers, float32 layers and calibration images."""

    path: Path
    layers: int
    float32_layers: int
    calibrated: int


@dataclass(frozen=True, slots=True)
class _Candidate:
    """Describes an 8-bit model that was tried. A better one has a larger ``merit``."""

    path: Path
    ranges: dict[str, Range]
    float32_layers: int
    agreement: Agreement

    @property
    def merit(self) -> tuple[float, float]:
        return self.agreement.worst, self.agreement.mean_iou


def make_int8(
    model: ModelProto,
    original: Detector,
    images: ImageFiles,
    scratch: Callable[[str], Path],
    *,
    min_agreement: float,
    on_progress: OnProgress,
) -> Int8Model:
    """Return the first 8-bit model whose recall and precision against the original reach ``min_agreement``.

    If none does, return the best. ``model`` has unique node names and opset 13 or newer; ``scratch`` returns
    the path of a temporary model by its name. Raises BadRequest when nothing can be quantised.
    """
    search = _Search(model, original, images, scratch, on_progress)
    best = search.best_ranges(min_agreement)
    if best.agreement.worst < min_agreement:
        best = search.best_with_float32_layers(best, min_agreement)
    return Int8Model(best.path, len(search.layers), best.float32_layers, search.calibrated)


class _Search:
    """Tries 8-bit variants of one model, and returns the best."""

    def __init__(
        self,
        model: ModelProto,
        original: Detector,
        images: ImageFiles,
        scratch: Callable[[str], Path],
        on_progress: OnProgress,
    ) -> None:
        self._model = model
        self._original = original
        self._images = images
        self._scratch = scratch
        self._on_progress = on_progress
        self._plan = plan_of(model)
        self._topology = Topology(model)
        self._feed_builder = FeedBuilder(original)
        nodes = set(self._plan.nodes)
        self.layers = [node.name for node in layers_of(model) if node.name in nodes]
        self.calibrated = min(_CALIBRATED, len(images))
        if not self.layers:
            raise BadRequest(
                "--precision int8: the model has no layers before its head that could be in 8 bits"
            )

    def best_ranges(self, min_agreement: float) -> _Candidate:
        """Calibrate; return the first all-8-bit candidate that reaches ``min_agreement``, or the best."""
        histograms = calibrate(
            self._model,
            self._plan.tensors,
            lambda: self._feeds(_CALIBRATED, "calibrating"),
            scratch=self._scratch("calibration"),
        )
        tried = []
        for power in POWERS:
            tried.append(self._try(histograms.ranges(power), [], f"power-{power}"))
            if tried[-1].agreement.worst >= min_agreement:
                break
        return max(tried, key=lambda candidate: candidate.merit)

    def best_with_float32_layers(self, best: _Candidate, min_agreement: float) -> _Candidate:
        """Keep sensitive layers in float32; return the first that reaches ``min_agreement``, or the best."""
        ranked = rank_layers(
            self._model,
            self.layers,
            best.ranges,
            list(self._feeds(_RANKED, "measuring layers")),
            self._original.layout,
            scratch=self._scratch("sensitivity"),
            on_layer=lambda done: self._on_progress("measuring layers", done / len(self.layers)),
        )
        counts = dict.fromkeys(max(1, round(share * len(ranked))) for share in _FLOAT32_SHARES)
        for count in counts:
            candidate = self._try(best.ranges, ranked[:count], f"float32-{count}")
            best = max(best, candidate, key=lambda either: either.merit)
            if best.agreement.worst >= min_agreement:
                break
        return best

    def _feeds(self, count: int, text: str) -> Iterator[Feed]:
        images = self._images.sample(count)
        for done, (_, frame) in enumerate(images.frames(self._original.model)):
            self._on_progress(text, done / len(images))
            yield self._feed_builder.build(frame)

    def _try(self, ranges: dict[str, Range], float32_layers: list[str], name: str) -> _Candidate:
        """Build a candidate, load it as the service would, and compare its boxes with the original's."""
        nodes = [node for node in self._topology.nodes if node.name in set(float32_layers)]
        units = [self._topology.unit_of(node) for node in nodes]
        path = self._scratch(name)
        write_graph(quantise(self._model, self._plan, ranges, set().union(*units)), path)
        text = f"comparing, {len(float32_layers)} layers in float32" if float32_layers else "comparing"
        images = self._images.sample(_TRIED)
        detector = open_detector(path)
        try:
            agreement = compare_boxes(
                self._original, detector, images, lambda done: self._on_progress(text, done / len(images))
            )
        finally:
            detector.close()
        return _Candidate(path, ranges, len(float32_layers), agreement)


def calibrate(
    model: ModelProto,
    tensors: Sequence[str],
    feeds: Callable[[], Iterator[Feed]],
    *,
    scratch: Path,
) -> ActivationHistograms:
    """Return the histograms of ``tensors``, activations or inputs, over the images that ``feeds`` yields.

    The model runs on all images twice: first to find the limits of the histograms, then to count. ``scratch``
    is a path for a temporary model.
    """
    inputs = {value.name for value in model.graph.input}
    internal = [name for name in tensors if name not in inputs]
    write_graph(_with_outputs(model, internal), scratch)
    # Optimisation would fuse nodes, so that some of the wanted activations would no longer be computed.
    session = open_session(scratch, optimised=False)

    def run(feed: Feed) -> dict[str, npt.NDArray[np.float32]]:
        arrays = dict(zip(internal, session.run(internal, feed), strict=True))
        return arrays | {name: feed[name] for name in tensors if name in inputs}

    histograms = ActivationHistograms(tensors)
    for feed in feeds():
        histograms.widen(run(feed))
    for feed in feeds():
        histograms.count(run(feed))
    return histograms


def _with_outputs(model: ModelProto, tensors: Sequence[str]) -> ModelProto:
    """Return the model with these activations as additional outputs."""
    copy = ModelProto()
    copy.CopyFrom(model)
    present = {value.name for value in copy.graph.output}
    copy.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in tensors
        if name not in present
    )
    return copy
