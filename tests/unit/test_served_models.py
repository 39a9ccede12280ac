"""Served models know their inference threads, the frames in flight and where an image is placed."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any, cast

import pytest

from inference.core.errors import WireError
from inference.engine.detector import Detector
from inference.engine.process import _default_threads
from inference.ipc.handshake import read_handshake
from inference.ipc.served_model import _MAX_LETTERBOXES, ServedModel, served_models
from inference.models.model import Family, ModelInfo, Placement
from inference.preprocess.letterbox import Letterbox

INFO = ModelInfo("m", "0" * 64, Family.YOLO, ("a",), 64, 64, Placement.CENTRED, 114)


def detector(provider: str, *buckets: int) -> Detector:
    return cast("Detector", SimpleNamespace(model=SimpleNamespace(provider=provider), buckets=buckets))


def test_lanes_follow_the_devices_that_serve() -> None:
    cores = len(os.sched_getaffinity(0))
    assert _default_threads([detector("cpu", 1, 2)]) == cores
    assert _default_threads([detector("openvino", 1, 2)]) == cores
    assert _default_threads([detector("cuda", 1, 2), detector("cpu", 1)]) == cores, "one fell back"
    assert _default_threads([detector("cuda", 1, 2), detector("tensorrt", 8)]) == 2
    assert _default_threads([detector("cuda", 1, 2), detector("cuda", 1)]) == 4, "runs of single frames"


def handshake(cost_ms: dict[str, float], **numbers: Any) -> dict[str, Any]:
    version = {"version": "v1", "model": INFO.to_dict(), "cost_ms": cost_ms}
    return {"versions": [version], "parallel": 1, "inference_threads": 2, "prefetch_depth": 3} | numbers


@pytest.mark.parametrize(
    ("cost_ms", "prefetch_depth", "frames"),
    [
        ({"1": 10.0}, 4, 4),  # two cores: one frame runs on each, and one waits behind it
        ({"1": 10.0, "2": 20.0}, 4, 4),  # two cores, where batches gain nothing
        ({"1": 5.0, "8": 10.0}, 3, 24),  # a GPU with two inference threads: each runs a batch, one waits
    ],
)
def test_frames_in_flight_are_batches_worth_forming(
    cost_ms: dict[str, float], prefetch_depth: int, frames: int
) -> None:
    assert (
        served_models(read_handshake(handshake(cost_ms, prefetch_depth=prefetch_depth)))["v1"].in_flight
        == frames
    )


def test_a_model_remembers_where_images_of_a_size_go_in_it() -> None:
    model = ServedModel(0, "v1", INFO, {1: 1.0}, in_flight=2, parallel=1, inference_threads=1)
    for width, height in [(640, 480), (480, 640), (1, 1), (640, 480)]:
        assert model.letterbox(width, height) == Letterbox.fit(width, height, INFO)
    assert model.letterbox(640, 480) is model.letterbox(640, 480)
    for width in range(1, 2_000):
        model.letterbox(width, 7)
    assert len(model._letterboxes) <= _MAX_LETTERBOXES
    with pytest.raises(ValueError, match="at least 1x1"):
        model.letterbox(0, 5)


@pytest.mark.parametrize("name", ["parallel", "inference_threads", "prefetch_depth"])
@pytest.mark.parametrize("value", ["2", None])
def test_a_handshake_without_numbers_is_refused(name: str, value: object) -> None:
    with pytest.raises(WireError, match=name):
        read_handshake(handshake({"1": 1.0}, **{name: value}))
