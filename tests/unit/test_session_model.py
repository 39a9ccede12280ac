"""A session gets another model between two of its frames, and its client knows which result is of which."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from inference.core.detection_params import DetectionParams
from inference.models.model import ModelInfo
from streamer.decoding.code_reader import CodeReader
from streamer.protocol.client_messages import Params
from streamer.protocol.wire import Codec, Frame
from streamer.sampling.sampler import SamplerFactory
from streamer.streams.flow_control import FlowControl
from streamer.streams.session import Session
from streamer.streams.session_model import SessionModel
from streamer.streams.stream_handle import StreamHandle
from tests.helpers.hostile_child import MODEL
from tests.unit.test_stream_handle import FakeCarrier

OLD = dataclasses.replace(ModelInfo.from_dict(MODEL), labels=("person", "bus"), sha256="a" * 64)
NEW = dataclasses.replace(OLD, labels=("bus", "person", "tram"), sha256="b" * 64, name="new")


class FakeDispatcher:
    """Serves one model, which a test may replace."""

    codes: CodeReader | None = None

    def __init__(self) -> None:
        self.now = OLD

    def model(self, _version: str) -> ModelInfo:
        return self.now

    def charge(self, *_: object) -> None:
        raise AssertionError("nothing is read here")


class Opened:
    """One session with one stream, as a connection holds it."""

    def __init__(self) -> None:
        self.dispatcher = FakeDispatcher()
        samplers = SamplerFactory(lambda _: True, lambda *_: None, ())
        self.model = SessionModel(self.dispatcher, samplers, "websocket", "v1")
        self.session = Session.of("v1", OLD)
        self.carrier = FakeCarrier()
        self.carrier.session = self.session
        sampler, codes = self.model.observers(0, "gate", None)
        self.handle = StreamHandle(self.carrier, FlowControl(0), sampler, codes=codes)

    def send(self, seq: int) -> None:
        self.handle.flow.receive(Frame(Codec.JPEG, seq, 0, b"x"), 0.0)

    def change(self, model: ModelInfo) -> None:
        self.dispatcher.now = model
        self.model.hold((self.handle,))
        self.outcome()

    def outcome(self) -> None:
        """Do what a connection does after each outcome."""
        self.model.change(self.session, (self.handle,), self.carrier.send_all)

    @property
    def configured(self) -> list[Any]:
        return [message for message in self.carrier.sent if message["type"] == "configured"]


@pytest.fixture
async def opened() -> Opened:
    return Opened()


async def test_an_idle_session_changes_at_once(opened: Opened) -> None:
    opened.session.cfg = 7
    opened.change(NEW)
    (message,) = opened.configured
    assert message["cfg"] == 7
    assert message["model"] == {"version": "v1", "name": "new", "labels": list(NEW.labels), "input": [64, 64]}
    assert not opened.model.changing
    opened.send(1)
    assert opened.handle.has_ready_frame(0.0)


async def test_frames_in_progress_end_first_and_no_further_one_starts(opened: Opened) -> None:
    opened.send(1)
    assert opened.handle.take(0.0) is not None
    opened.change(NEW)
    opened.send(2)
    assert not opened.configured
    assert not opened.handle.has_ready_frame(0.0)
    opened.handle.flow.answered(1)
    opened.outcome()
    assert len(opened.configured) == 1
    assert opened.handle.has_ready_frame(0.0)
    opened.outcome()
    assert len(opened.configured) == 1, "it is told once"


async def test_a_second_change_before_the_first_was_carried_out_is_told_once(opened: Opened) -> None:
    opened.send(1)
    opened.handle.take(0.0)
    opened.change(NEW)
    opened.change(dataclasses.replace(NEW, name="newest", sha256="c" * 64))
    opened.handle.flow.answered(1)
    opened.outcome()
    assert [message["model"]["name"] for message in opened.configured] == ["newest"]


async def test_samples_name_the_new_model(opened: Opened) -> None:
    before = opened.handle.sampler
    opened.change(NEW)
    after = opened.handle.sampler
    assert after is not None
    assert after is not before
    assert (after._stream.model_sha256, after._stream.labels) == (NEW.sha256, NEW.labels)


async def test_classes_keep_their_names_and_thresholds_follow_the_default(opened: Opened) -> None:
    opened.session.configure(Params(classes=["bus"], iou_threshold=0.6))
    stricter = dataclasses.replace(NEW, conf_threshold=0.55)
    opened.change(stricter)
    (message,) = opened.configured
    assert message["params"]["classes"] == ["bus"]
    assert message["params"]["iou_threshold"] == 0.6
    assert message["params"]["conf_threshold"] == stricter.default_params.conf_threshold
    assert not [each for each in opened.carrier.sent if each["type"] == "error"]


@pytest.mark.parametrize(("classes", "kept"), [(["bus", "person"], ["bus"]), (["person"], [])])
async def test_a_client_is_told_which_of_its_classes_are_gone(
    opened: Opened, classes: list[str], kept: list[str]
) -> None:
    opened.session.configure(Params(classes=list(classes)))
    opened.change(dataclasses.replace(NEW, labels=("bus", "tram")))
    (message,) = opened.configured
    (error,) = [each for each in opened.carrier.sent if each["type"] == "error"]
    assert message["params"]["classes"] == kept
    assert (error["code"], error["fatal"], error["field"]) == ("classes_lost", False, "params.classes")
    assert "'person'" in error["message"]


async def test_a_session_that_is_resumed_later_has_the_present_model(opened: Opened) -> None:
    opened.session.configure(Params(classes=["person"]))
    opened.dispatcher.now = NEW
    opened.model.resume(opened.session)
    assert opened.session.labels == NEW.labels
    assert opened.session.describe_params()["classes"] == ["person"]
    assert opened.model.info is NEW


async def test_tracks_end_and_ids_go_on(opened: Opened) -> None:
    import numpy as np  # noqa: PLC0415 - only here

    boxes = np.array([[10, 10, 50, 50, 0.9, 1]], np.float32)
    tracker = opened.session.tracker(0)
    assert tracker.update(boxes, 1_000_000)[0, 6] == 1
    opened.change(NEW)
    assert opened.session.tracker(0).update(boxes, 1_040_000)[0, 6] == 2


@pytest.mark.parametrize(
    ("wanted", "now", "ids", "lost"),
    [
        ((), ("x",), (), ()),
        ((1,), ("a", "b"), (1,), ()),
        ((1, 0), ("b", "a"), (0, 1), ()),
        ((0, 1), ("b",), (0,), ("a",)),
        ((0,), ("x",), (), ("a",)),
        ((1,), ("b", "b"), (0,), ()),
    ],
)
def test_class_ids_follow_their_labels(
    wanted: tuple[int, ...], now: tuple[str, ...], ids: tuple[int, ...], lost: tuple[str, ...]
) -> None:
    params, missing = DetectionParams(class_ids=wanted).for_labels(("a", "b"), now)
    assert (params.class_ids, missing) == (ids, lost)
