"""Holds what workers know about a model that the inference process serves: costs, capacity, letterboxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from inference.core.warmup import worthwhile_buckets
from inference.ipc.handshake import Handshake
from inference.models.model import ModelInfo
from inference.preprocess.letterbox import Letterbox

#: Number of image sizes whose letterbox is kept for each model.
_MAX_LETTERBOXES = 256


@dataclass(frozen=True, slots=True)
class ServedModel:
    """Holds one version as the inference process announced it."""

    index: int
    version: str
    info: ModelInfo
    #: Maps each batch size to the milliseconds of one run.
    cost_ms: dict[int, float]
    #: Frames in flight that keep the device busy: one batch for each inference thread, and some that wait.
    in_flight: int
    #: Number of runs that execute in parallel.
    parallel: int
    #: Number of threads that call the model; more than ``parallel`` when they share a device.
    inference_threads: int
    #: Letterboxes by width and height of the image, kept because the frames of a stream have the same size.
    _letterboxes: dict[tuple[int, int], Letterbox] = field(default_factory=dict, compare=False, repr=False)

    @property
    def capacity_fps(self) -> float:
        """Frames per second at the best batch size, by the measurements of the warm-up."""
        return self.parallel * max(size / cost for size, cost in self.cost_ms.items()) * 1e3

    def letterbox(self, width: int, height: int) -> Letterbox:
        """Return the place of an upright image of this size in the model input. Any thread may call."""
        found = self._letterboxes.get((width, height))
        if found is None:
            if len(self._letterboxes) >= _MAX_LETTERBOXES:
                self._letterboxes.clear()
            found = self._letterboxes[width, height] = Letterbox.fit(width, height, self.info)
        return found


def combined(models: Sequence[ServedModel]) -> ServedModel:
    """Return what several engines can do together that serve the same model, at least one.

    ``cost_ms`` is such that the capacity at each batch size is the sum of theirs.
    """
    first = models[0]
    if len(models) == 1:
        return first
    parallel = sum(model.parallel for model in models)
    sizes = set.intersection(*(set(model.cost_ms) for model in models)) or {min(first.cost_ms)}
    return ServedModel(
        first.index,
        first.version,
        first.info,
        {
            size: parallel / sum(m.parallel / m.cost_ms.get(size, first.cost_ms[size]) for m in models)
            for size in sorted(sizes)
        },
        sum(model.in_flight for model in models),
        parallel,
        sum(model.inference_threads for model in models),
    )


def changed_versions(before: Mapping[str, ServedModel], after: Mapping[str, ServedModel]) -> set[str]:
    """Return the versions whose model is another one than before, or that only one of both has."""
    digests = {version: model.info.sha256 for version, model in after.items()}
    former = {version: model.info.sha256 for version, model in before.items()}
    return {v for v in digests.keys() | former.keys() if digests.get(v) != former.get(v)}


def served_models(handshake: Handshake) -> dict[str, ServedModel]:
    """Return the models of a checked handshake by version."""
    models: dict[str, ServedModel] = {}
    for index, entry in enumerate(handshake.versions):
        in_flight = handshake.prefetch_depth * worthwhile_buckets(entry.cost_ms)[-1]
        models[entry.version] = ServedModel(
            index,
            entry.version,
            entry.info,
            entry.cost_ms,
            in_flight,
            handshake.parallel,
            handshake.inference_threads,
        )
    return models
