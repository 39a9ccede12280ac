"""A session continues in another process with everything that its client has agreed on."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from inference.core.detection_params import DetectionParams
from inference.models.model import ModelInfo
from streamer.protocol.client_messages import Hello, Params, ResumeOffer, StreamOffer
from streamer.streams.session import Session, SessionStore
from tests.helpers.hostile_child import MODEL

LABELS = ("person", "bus")


def begun() -> Session:
    """Return a session with two streams, the second of which has sent seven frames."""
    session = Session("v1", LABELS, DetectionParams(), id="old")
    session.configure(Params(conf_threshold=0.6, classes=["bus"], track=True))
    session.cfg = 4
    session.open_streams(Hello(type="hello", streams=[StreamOffer(id=0), StreamOffer(id=3, mode="all")]))
    session.streams[3].last_seq = 7
    boxes = np.array([[10, 10, 50, 50, 0.9, 1]], np.float32)
    session.tracker(3).update(boxes, 1_000_000)
    return session


def moved(session: Session, **changes: Any) -> Session:
    state = json.loads(json.dumps(session.to_state())) | changes
    return Session.from_state(state, "v1", LABELS, "new")


@pytest.mark.parametrize(("manifest", "threshold"), [(None, 0.25), (0.0, 0.0), (0.35, 0.35)])
def test_a_stream_begins_with_the_models_own_threshold(manifest: float | None, threshold: float) -> None:
    model = ModelInfo.from_dict(MODEL | {"conf_threshold": manifest})
    session = Session.of("v1", model, id="new", owner="somebody")
    assert session.describe_params()["conf_threshold"] == threshold
    assert (session.labels, session.id, session.owner) == (model.labels, "new", "somebody")


def test_parameters_tracks_and_sequence_numbers_go_along() -> None:
    session = moved(moved(begun()))  # it moves twice before its client opens its streams again
    assert session.id == "new"
    assert (session.cfg, session.track) == (4, True)
    assert session.describe_params() == begun().describe_params()
    hello = Hello(type="hello", streams=[StreamOffer(id=3, mode="all"), StreamOffer(id=0)])
    session.open_streams(hello)
    assert (session.streams[3].last_seq, session.streams[0].last_seq) == (7, 0)
    boxes = np.array([[12, 10, 52, 50, 0.9, 1]], np.float32)
    assert session.tracker(3).update(boxes, 1_040_000)[0, 6] == 1, "the object keeps its id"


def test_in_mode_all_the_client_says_where_to_go_on() -> None:
    session = moved(begun())
    resume = ResumeOffer(session="old", acks={3: 5})
    session.open_streams(Hello(type="hello", streams=[StreamOffer(id=3, mode="all")], resume=resume))
    assert session.streams[3].last_seq == 5


@pytest.mark.parametrize(
    "change",
    [
        {"labels": ["person", "car"]},
        {"params": {"conf_threshold": 0.5, "unknown": 1, "class_ids": []}},
        {"params": {}},
        {"marks": {"0": [1]}},
        {"trackers": {"x": {}}},
        {"trackers": {"0": {}}},
        {"cfg": None},
    ],
)
def test_a_state_of_another_model_or_release_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        moved(begun(), **change)


def test_nobody_pushes_the_kept_sessions_of_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamer.streams.session.MAX_KEPT_SESSIONS", 3)
    store = SessionStore(30.0)
    store.keep(Session("v1", LABELS, DetectionParams(), id="bob", owner="bob"), 0.0)
    for number in range(5):
        store.keep(Session("v1", LABELS, DetectionParams(), id=f"ann-{number}", owner="ann"), 1.0)
    assert len(store) == 3
    assert store.take("bob", "v1", "bob", 2.0) is not None
    assert store.take("ann-0", "v1", "ann", 2.0) is None, "the oldest of whoever has most"
    assert store.take("ann-4", "v1", "bob", 2.0) is None, "another's"
    assert store.take("ann-4", "v1", "ann", 2.0) is not None
