"""Frames of v1 run on v2 only while there is room, and each that is drawn has exactly one outcome."""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.core.detection_params import DetectionParams
from inference.core.errors import InferenceFailed
from inference.ipc.served_model import ServedModel
from inference.models.model import ModelInfo
from streamer.accounting.shadow_metrics import OUTCOMES, ShadowMetrics
from streamer.comparison.draw import NEIGHBOURS, hash_name, is_drawn
from streamer.comparison.pair import ComparedPair
from streamer.comparison.translation import translate
from streamer.core import clock
from streamer.imaging.image_header import Limits
from streamer.sampling.candidate import ShadowResult
from streamer.sampling.sampler import Observation
from streamer.sampling.shadow import (
    MAX_LOAD,
    MAX_WAIT_S,
    MAX_WAITING,
    MAX_WAITING_BYTES,
    ShadowRuns,
    shadow_stream,
)
from streamer.scheduling.errors import DeadlineExceeded
from streamer.scheduling.idle_runs import Interrupted
from streamer.scheduling.job import Job, Prediction
from streamer.server.sampling import drawn_candidates
from tests.helpers.hostile_child import MODEL

PARAMS = DetectionParams()
BOXES = np.asarray([[1, 2, 30, 40, 0.9, 1], [3, 4, 20, 20, 0.2, 0]], np.float32)


def model(version: str, **changes: Any) -> ServedModel:
    info = ModelInfo.from_dict(MODEL | {"name": f"codes_{version}", "sha256": version * 32} | changes)
    return ServedModel(0, version, info, {1: 5.0}, 2, 1, 1)


def found(boxes: Any = BOXES, **changes: Any) -> Prediction:
    return dataclasses.replace(Prediction(640, 480, boxes, 2.0, 1.0, 7.0, 0.5, 1), **changes)


#: What the service reads as its clock, in monotonic seconds; a test may change it.
NOW = [1000.0]


@pytest.fixture(autouse=True)
def clock_that_stands() -> Iterator[None]:
    NOW[0] = 1000.0
    with clock.replaced(lambda: NOW[0]):
        yield


class FakeRunner:
    """Runs nothing by itself: the test ends each run."""

    def __init__(self, *versions: ServedModel) -> None:
        self.models = {served.version: served for served in versions}
        self.idle = True
        self.job: Job | None = None
        self.begun = 0

    @property
    def mark(self) -> int | None:
        return self.begun if self.idle else None

    @property
    def running(self) -> bool:
        return self.job is not None

    def start(self, version: str, job: Job) -> bool:
        if not self.idle or self.running:
            return False
        assert version in self.models
        self.job = job
        return True

    def end(self, outcome: Prediction | Exception) -> None:
        job, self.job = self.job, None
        assert job is not None
        job.finish(outcome)


class Rig:
    """Holds the shadow runs of a worker that has v1 and v2."""

    def __init__(self, *versions: ServedModel) -> None:
        self.runner = FakeRunner(*(versions or (model("v1"), model("v2"))))
        self.metrics = ShadowMetrics()
        self.pairs: list[ComparedPair] = []
        self.share, self.load = 1.0, 0.0
        self.runs = ShadowRuns(
            self.runner, Limits(), self.metrics, self, share=lambda: self.share, load=lambda: self.load
        )
        stream = shadow_stream(self.runs, "door", "v1", None)
        assert stream is not None
        self.stream = stream
        self.seq = 0

    def add(self, pair: ComparedPair) -> None:
        self.pairs.append(pair)

    def offer(self, data: bytes = b"jpeg", params: DetectionParams = PARAMS, **changes: Any) -> None:
        self.seq += 1
        self.stream.offer(self.seq, data, 0, NOW[0], params, found(**changes))

    def counts(self) -> dict[str, int]:
        """Return the counts that are not 0; `drawn` is among them."""
        outcomes = {name: self.metrics._outcomes.labels(name)._value.get() for name in OUTCOMES}
        counts = {"drawn": self.metrics._drawn._value.get()} | outcomes
        return {name: int(count) for name, count in counts.items() if count}

    def begin(self) -> None:
        """Do what the timer does; a run must begin."""
        self.runs._try()
        self.runs._try()
        assert self.runner.running


async def test_a_pair_has_the_boxes_and_the_models_of_both_versions() -> None:
    rig = Rig()
    rig.offer(b"image")
    rig.begin()
    assert rig.runner.job is not None
    assert rig.runner.job.data == b"image"
    rig.runner.end(found(BOXES[:1], inference_ms=11.0))
    (pair,) = rig.pairs
    assert (pair.stream, pair.seq, pair.width, pair.height) == (hash_name("door"), 1, 640, 480)
    assert abs(pair.at - time.time()) < 60
    assert (pair.served.version, pair.served.model_name, pair.served.inference_ms) == ("v1", "codes_v1", 7.0)
    assert (pair.shadow.version, pair.shadow.model_sha256, pair.shadow.inference_ms) == (
        "v2",
        "v2" * 32,
        11.0,
    )
    assert pair.served.boxes is BOXES
    assert pair.shadow.boxes.tolist() == BOXES[:1].tolist()
    assert pair.served.labels == pair.shadow.labels == ("qr_code", "barcode")
    assert (pair.may_keep_image, pair.consecutive) == (False, True)
    assert rig.counts() == {"drawn": 1, "run": 1}


async def test_nothing_is_drawn_without_a_share_from_v2_or_from_damaged_frames() -> None:
    rig = Rig()
    rig.offer(damaged=True)
    rig.share = 0.0
    rig.offer()
    assert shadow_stream(rig.runs, "door", "v2", None) is None
    rig.runs.offer_post("v2", 1, b"", 0.0, PARAMS, found(), None)
    assert rig.counts() == {}


@pytest.mark.parametrize(
    ("outcome", "prepare"),
    [
        ("no_capacity", lambda rig: setattr(rig, "load", MAX_LOAD + 0.1)),
        ("not_loaded", lambda rig: rig.runner.models.pop("v2")),
    ],
)
async def test_a_frame_that_cannot_run_now_is_counted_by_its_reason(
    outcome: str, prepare: Callable[[Rig], object]
) -> None:
    rig = Rig()
    prepare(rig)
    rig.offer()
    assert rig.counts() == {"drawn": 1, outcome: 1}


async def test_a_frame_that_takes_long_to_decode_does_not_run() -> None:
    rig = Rig()
    rig.offer(decode_ms=60.0)
    assert rig.counts() == {"drawn": 1, "large": 1}


async def test_frames_on_their_way_when_v1_gets_another_model_are_not_paired_with_its_name() -> None:
    rig = Rig()
    rig.offer(b"before")
    rig.begin()
    rig.runner.end(found())
    rig.runner.models["v1"] = model("v1", sha256="f" * 64)
    NOW[0] += 1.0
    rig.stream.offer(8, b"on its way", 0, NOW[0] - 0.5, PARAMS, found())
    NOW[0] += 0.1
    rig.stream.offer(9, b"after", 0, NOW[0] - 0.05, PARAMS, found())
    rig.begin()
    rig.runner.end(found())
    assert rig.counts() == {"drawn": 3, "run": 2, "model_changed": 1}
    assert [pair.served.model_sha256 for pair in rig.pairs] == ["v1" * 32, "f" * 64]


async def test_waiting_frames_are_bounded_by_number_and_by_bytes() -> None:
    rig = Rig()
    rig.runner.idle = False
    for number in range(MAX_WAITING + 2):
        rig.offer(b"%d" % number)
    assert rig.counts() == {"drawn": MAX_WAITING + 2, "no_capacity": 2}
    rig.runs.close()
    assert rig.counts() == {"drawn": MAX_WAITING + 2, "no_capacity": 2, "expired": MAX_WAITING}
    body = bytes(MAX_WAITING_BYTES // 2 + 1)
    rig.runs.offer_post("v1", 1, memoryview(body)[:10], 0.0, PARAMS, found(), None)
    rig.runs.offer_post("v1", 1, memoryview(body)[10:20], 0.0, PARAMS, found(), None)
    assert rig.counts()["no_capacity"] == 3, "a part of a body keeps the whole body"
    rig.runs.close()


async def test_a_frame_waits_for_an_idle_device_for_half_a_second() -> None:
    rig = Rig()
    rig.runner.idle = False
    rig.offer()
    NOW[0] += MAX_WAIT_S
    rig.runs._try()
    assert rig.counts() == {"drawn": 1}
    NOW[0] += 0.01
    rig.runs._try()
    assert rig.counts() == {"drawn": 1, "expired": 1}


async def test_the_timer_starts_a_run_and_stops_when_nothing_waits() -> None:
    rig = Rig()
    rig.offer()
    while not rig.runner.running:
        await asyncio.sleep(0.001)
    assert rig.runs._timer is None
    rig.runner.end(found())
    assert rig.runs._timer is None
    assert rig.counts() == {"drawn": 1, "run": 1}


async def test_a_moment_between_two_frames_is_too_short() -> None:
    rig = Rig()
    rig.offer()
    for _ in range(5):
        rig.runs._try()
        assert not rig.runner.running
        rig.runner.begun += 1
    rig.begin()


async def test_a_run_that_is_interrupted_is_tried_again() -> None:
    rig = Rig()
    rig.offer()
    rig.begin()
    rig.runner.end(Interrupted())
    assert rig.counts() == {"drawn": 1}
    rig.begin()
    rig.runner.end(found())
    assert rig.counts() == {"drawn": 1, "run": 1}


@pytest.mark.parametrize(
    ("error", "outcome"), [(DeadlineExceeded(), "expired"), (InferenceFailed("broken"), "failed")]
)
async def test_a_run_without_a_result_is_counted(error: Exception, outcome: str) -> None:
    rig = Rig()
    rig.offer()
    rig.begin()
    rig.runner.end(error)
    assert rig.counts() == {"drawn": 1, outcome: 1}


async def test_a_sink_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    rig.add = None  # type: ignore[assignment, method-assign]
    rig.offer()
    rig.begin()
    rig.runner.end(found())
    assert rig.counts() == {"drawn": 1, "run": 1}
    assert "a pair was not taken" in caplog.text


async def test_a_candidate_and_a_pair_of_one_frame_share_a_run() -> None:
    rig = Rig()
    results: list[ShadowResult | None] = []
    data = b"jpeg of both"
    observation = Observation(data, 1, 0, 0.0, 0.0, 640, 480, PARAMS, BOXES)
    assert rig.runs.start("v1", observation, results.append)
    rig.offer(data)
    rig.begin()
    assert rig.runner.job is not None
    assert rig.runner.job.params.conf_threshold == 0.125
    rig.runner.end(found())
    assert results[0] is not None
    assert (results[0].version, len(results[0].boxes)) == ("v2", 2)
    assert len(rig.pairs[0].shadow.boxes) == 1, "the threshold of the client is 0.25"
    assert rig.counts() == {"drawn": 1, "run": 1}
    assert not rig.runner.running


async def test_candidates_of_v1_run_at_the_share_of_the_comparison() -> None:
    rig = Rig()
    start = drawn_candidates(rig.runs)
    observation = Observation(b"jpeg", 1, 0, 0.0, 0.0, 640, 480, PARAMS, BOXES)
    results: list[ShadowResult | None] = []
    assert not start("v2", observation, results.append)
    rig.share = 0.0
    assert not start("v1", observation, results.append)
    rig.share = 1.0
    assert start("v1", observation, results.append)
    rig.begin()
    rig.runner.end(found())
    assert results[0] is not None
    assert results[0].version == "v2"


async def test_a_candidate_needs_another_version_with_the_same_classes() -> None:
    rig = Rig(model("v1"), model("v2", labels=["cat", "dog"]))
    observation = Observation(b"", 1, 0, 0.0, 0.0, 640, 480, PARAMS, BOXES)
    assert not rig.runs.start("v1", observation, lambda _: None)


async def test_posts_of_a_client_are_one_stream_whose_images_do_not_follow_each_other() -> None:
    rig = Rig()
    for data in (b"one", b"two"):
        rig.runs.offer_post("v1", 7, data, NOW[0], PARAMS, found(), None)
    for _ in range(2):
        rig.begin()
        rig.runner.end(found())
    first, second = rig.pairs
    assert first.stream == second.stream == hash_name("http:7")
    assert (first.seq, second.seq, first.consecutive) == (0, 1, False)


ACTIONS = st.lists(
    st.sampled_from(
        ["offer", "same", "try", "run", "interrupt", "fail", "late", "busy", "idle", "load", "swap"]
    ),
    max_size=60,
)


@given(actions=ACTIONS)
def test_every_drawn_frame_has_one_outcome(actions: list[str]) -> None:
    asyncio.run(play(actions))


async def play(actions: list[str]) -> None:
    rig = Rig()
    second, same = rig.runner.models["v2"], b"the same bytes"
    ends: dict[str, Prediction | Exception] = {
        "run": found(),
        "interrupt": Interrupted(),
        "fail": InferenceFailed("broken"),
        "late": DeadlineExceeded(),
    }
    for number, action in enumerate(actions):
        if action in ("offer", "same"):
            rig.offer(same if action == "same" else b"%d" % number)
        elif action == "try":
            rig.runs._try()
        elif action in ends and rig.runner.running:
            rig.runner.end(ends[action])
        elif action in ("busy", "idle"):
            rig.runner.idle = action == "idle"
        elif action == "load":
            rig.load = 1.0 - rig.load
        elif action == "swap" and rig.runner.models.pop("v2", None) is None:
            rig.runner.models["v2"] = second
        assert len(rig.runs._waiting) <= MAX_WAITING + 1  # one that was interrupted returns
    if rig.runner.running:
        rig.runner.end(Interrupted())
    rig.runs.close()
    assert rig.runs._bytes == 0
    counts = rig.counts()
    assert counts.pop("drawn", 0) == sum(counts.values()) == sum(a in ("offer", "same") for a in actions)
    assert counts.get("run", 0) == len(rig.pairs)


def test_the_draw_is_the_share_and_the_same_everywhere() -> None:
    streams = [hash_name(f"camera {number}") for number in range(50)]
    frames = [(stream, seq) for stream in streams for seq in range(0, 2000, NEIGHBOURS)]
    drawn = {share: {frame for frame in frames if is_drawn(*frame, share)} for share in (0.1, 0.2)}
    for share, some in drawn.items():
        assert len(some) == pytest.approx(share * len(frames), rel=0.05)
    assert drawn[0.1] < drawn[0.2]
    assert not any(is_drawn(*frame, 0.0) for frame in frames[:100])
    assert all(is_drawn(*frame, 1.0) for frame in frames[:100])
    assert [seq for seq in range(40) if is_drawn(hash_name("door"), seq, 0.2)] == [
        6,
        7,
        14,
        15,
        18,
        19,
        22,
        23,
        34,
        35,
    ]


def test_neighbours_are_drawn_together() -> None:
    for seq in range(0, 500, NEIGHBOURS):
        together = {is_drawn("door", seq + step, 0.3) for step in range(NEIGHBOURS)}
        assert len(together) == 1


def test_parameters_are_those_of_the_other_model_where_the_client_has_set_none() -> None:
    own = model("v1", conf_threshold=0.4).info
    other = model("v2", conf_threshold=0.3, labels=["barcode", "cat"]).info
    assert translate(own.default_params, own, other) == other.default_params
    asked = DetectionParams(conf_threshold=0.6, iou_threshold=0.7, class_ids=(0, 1), max_detections=9)
    assert translate(asked, own, other) == dataclasses.replace(asked, class_ids=(0,))
    assert translate(dataclasses.replace(asked, class_ids=(0,)), own, other) is None


_WORKER = """
import os
from inference.core.metric_setup import name_process
name_process("worker-0")
from streamer.accounting.shadow_metrics import OUTCOMES, ShadowMetrics
metrics = ShadowMetrics()
print({name: int(metrics._outcomes.labels(name)._value.get()) for name in OUTCOMES})
for _ in range(3):
    metrics.drawn()
metrics.ended("run")
os.kill(os.getpid(), 9)
"""


def test_frames_that_a_killed_worker_held_have_failed(tmp_path: Path) -> None:
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-c", _WORKER]
    found = [
        ast.literal_eval(
            subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=False).stdout.decode()
        )
        for _ in range(3)
    ]
    assert [(counts["run"], counts["failed"]) for counts in found] == [(0, 0), (1, 2), (2, 4)]
