"""Makes an 8-bit model that finds what the original finds: calibrates, tries, and spares what suffers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto

from inference.engine.detector import Detector
from streamer.model_tools.agreement import Agreement
from streamer.model_tools.calibration import calibrate
from streamer.model_tools.comparison import compare_boxes, open_detector
from streamer.model_tools.feeds import Feeder, Feeds
from streamer.model_tools.graph import write_graph
from streamer.model_tools.head import Wiring, layers_of
from streamer.model_tools.images import Pictures
from streamer.model_tools.quantiser import plan_of, quantised
from streamer.model_tools.ranges import POWERS, Range
from streamer.model_tools.sensitivity import rank_layers
from streamer.model_zoo.errors import BadRequest

#: Shares of the layers that are spared, tried in this order until the boxes agree. Five of the 104 layers of
#: YOLOX-nano took it from 67 % of the boxes to 92 %, ten to 96 %.
_SPARED = (0.05, 0.1, 0.2, 0.4)
#: Pictures for each purpose, evenly spread over those given.
_CALIBRATED = 64
_TRIED = 32
_RANKED = 4

#: Hears what is done at the moment, and how much of it is done, 0..1.
Tell = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Quantised:
    """An 8-bit model: where it is, how many of its layers are in 8 bits, and what it was calibrated on."""

    path: Path
    layers: int
    spared: int
    calibrated: int


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A model that was tried. The better one has the larger ``merit``."""

    path: Path
    ranges: dict[str, Range]
    spared: int
    agreement: Agreement

    @property
    def merit(self) -> tuple[float, float]:
        return self.agreement.worst, self.agreement.mean_iou


def make_int8(
    model: ModelProto,
    original: Detector,
    pictures: Pictures,
    draft: Callable[[str], Path],
    *,
    wanted: float,
    tell: Tell,
) -> Quantised:
    """Return the first 8-bit model whose boxes agree with the original's: recall and precision ``wanted``.

    Where none does, the one that agrees best. ``model`` has named nodes and an opset of 13 or more;
    ``draft`` makes paths to write to. Raises BadRequest when nothing can be quantised.
    """
    search = _Search(model, original, pictures, draft, tell)
    best = search.best_ranges(wanted)
    if best.agreement.worst < wanted:
        best = search.best_sparing(best, wanted)
    return Quantised(best.path, len(search.layers), best.spared, search.calibrated)


class _Search:
    """Tries 8-bit models of one original."""

    def __init__(
        self,
        model: ModelProto,
        original: Detector,
        pictures: Pictures,
        draft: Callable[[str], Path],
        tell: Tell,
    ) -> None:
        self._model = model
        self._original = original
        self._pictures = pictures
        self._draft = draft
        self._tell = tell
        self._plan = plan_of(model)
        self._wiring = Wiring(model)
        self._feeder = Feeder(original)
        nodes = set(self._plan.nodes)
        self.layers = [node.name for node in layers_of(model) if node.name in nodes]
        self.calibrated = min(_CALIBRATED, len(pictures))
        if not self.layers:
            raise BadRequest(
                "--precision int8: the model has no layers before its head that could be in 8 bits"
            )

    def best_ranges(self, wanted: float) -> _Candidate:
        """Calibrate; return the first model that agrees as ``wanted``, or the best, all layers in 8 bits."""
        activations = calibrate(
            self._model,
            self._plan.tensors,
            lambda: self._feeds(_CALIBRATED, "calibrating"),
            draft=self._draft("calibration"),
        )
        tried = []
        for power in POWERS:
            tried.append(self._try(activations.ranges(power), [], f"power-{power}"))
            if tried[-1].agreement.worst >= wanted:
                break
        return max(tried, key=lambda candidate: candidate.merit)

    def best_sparing(self, best: _Candidate, wanted: float) -> _Candidate:
        """Return the first model that agrees as ``wanted``, or the best, with sensitive layers in float32."""
        ranked = rank_layers(
            self._model,
            self.layers,
            best.ranges,
            list(self._feeds(_RANKED, "measuring layers")),
            self._original.layout,
            draft=self._draft("sensitivity"),
            on_layer=lambda done: self._tell("measuring layers", done / len(self.layers)),
        )
        counts = dict.fromkeys(max(1, round(share * len(ranked))) for share in _SPARED)
        for count in counts:
            candidate = self._try(best.ranges, ranked[:count], f"spared-{count}")
            best = max(best, candidate, key=lambda one: one.merit)
            if best.agreement.worst >= wanted:
                break
        return best

    def _feeds(self, count: int, text: str) -> Iterator[Feeds]:
        pictures = self._pictures.sample(count)
        for done, (_, frame) in enumerate(pictures.frames(self._original.model)):
            self._tell(text, done / len(pictures))
            yield self._feeder.feeds(frame)

    def _try(self, ranges: dict[str, Range], spared: list[str], name: str) -> _Candidate:
        """Build a model, load it as the service would, and compare its boxes."""
        units = [self._wiring.unit_of(node) for node in self._wiring.nodes if node.name in set(spared)]
        path = self._draft(name)
        write_graph(quantised(self._model, self._plan, ranges, set().union(*units)), path)
        text = f"comparing, {len(spared)} layers spared" if spared else "comparing"
        pictures = self._pictures.sample(_TRIED)
        detector = open_detector(path)
        try:
            agreement = compare_boxes(
                self._original, detector, pictures, lambda done: self._tell(text, done / len(pictures))
            )
        finally:
            detector.close()
        return _Candidate(path, ranges, len(spared), agreement)
