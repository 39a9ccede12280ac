"""The client's flow control without sockets: one outcome per frame, the window, re-sending and pings."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.client.flow import HOLD_PING_S, KEEPALIVE_S, MAX_SENDS, Flow, Sent
from streamer.client.results import Drop, FrameError, Outcome, Result
from streamer.protocol.wire import Codec


def frame(tag: Any = None) -> Sent:
    return Sent(0, b"frame", Codec.JPEG, 1.5, tag)


def welcomed(mode: str = "live", **flow: Any) -> Flow:
    core = Flow(mode)
    core.welcomed(welcome(**flow), 0.0)
    return core


def welcome(*, session: str = "s", **flow: Any) -> dict[str, Any]:
    return {
        "session": session,
        "model": {"labels": ["person", "bus"]},
        "flow": {"win": 2, "max_fps": None} | flow,
    }


def result(seq: int, **fields: Any) -> dict[str, Any]:
    return {
        "type": "result",
        "seq": seq,
        "width": 40,
        "height": 30,
        "boxes": [],
        "ack": seq,
        "win": 2,
    } | fields


class Peer:
    """Drives a client's flow and simulates its server, which answers as the test's random choices say."""

    def __init__(self, mode: str) -> None:
        self.flow = Flow(mode)
        self.now = 100.0
        self.on_wire: list[int] = []
        self.highest = 0
        self.finished: dict[int, Outcome] = {}
        self.sends: dict[int, int] = {}
        self.window = 2

    def take(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            assert outcome.seq not in self.finished, "a second outcome"
            assert outcome.tag == outcome.seq
            self.finished[outcome.seq] = outcome
        assert self.flow.ledger.balance == 0

    @property
    def ack(self) -> int:
        return min(self.on_wire, default=self.highest + 1) - 1

    def fields(self) -> dict[str, int]:
        return {"ack": self.ack, "win": self.window}

    def connect(self) -> None:
        self.flow.welcomed(welcome(win=self.window), self.now)
        self.on_wire = []

    def send(self) -> None:
        if self.flow.refusal(self.now) is not None:
            return
        if self.flow.has_resends:
            sent = self.flow.resending(self.now)
            assert self.flow.mode == "all", "live frames are never sent again"
        else:
            sent = frame()
            self.flow.ledger.offered += 1
            self.flow.sending(sent, self.now)
            sent.tag = sent.seq
        assert sent.seq not in self.finished
        true_ack = next(n for n in range(self.flow.last_seq + 1) if n + 1 not in self.finished)
        assert sent.seq - max(true_ack, self.ack) <= self.window, "past the window"
        assert all(sent.seq > seq for seq in self.on_wire), "out of order"
        self.sends[sent.seq] = self.sends.get(sent.seq, 0) + 1
        self.on_wire.append(sent.seq)
        self.highest = max(self.highest, sent.seq)

    def answer(self, kind: str, pick: int) -> None:
        if not self.on_wire:
            return
        seq = self.on_wire.pop(pick % len(self.on_wire))
        if kind == "result":
            message = result(seq, **self.fields())
        elif kind == "drop":
            last = seq
            while last + 1 in self.on_wire:
                last += 1
                self.on_wire.remove(last)
            message = {"type": "drop", "from": seq, "to": last, "reason": "stale", **self.fields()}
        else:
            message = {"type": "error", "code": "x", "message": "y", "seq": seq, **self.fields()}
        self.take(self.flow.received(message, self.now))

    def lose(self) -> None:
        self.on_wire = []
        self.take(self.flow.disconnected())

    def do(self, action: str, number: int) -> None:
        self.now += 0.01
        if action == "connect" and not self.flow.connected:
            self.connect()
        elif action == "send":
            self.send()
        elif action in ("result", "drop", "error") and self.flow.connected:
            self.answer(action, number)
        elif action == "lose" and self.flow.connected:
            self.lose()
        elif action == "flow" and self.flow.connected:
            self.window = number % 9
            self.take(self.flow.received({"type": "flow", "reason": "", **self.fields()}, self.now))


ACTIONS = ["send"] * 4 + ["result"] * 3 + ["drop", "error", "lose", "flow", "connect", "connect"]


@given(
    mode=st.sampled_from(["live", "all"]),
    steps=st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 8)), max_size=120),
)
def test_every_frame_has_one_outcome_and_the_window_is_kept_whatever_happens(
    mode: str, steps: list[tuple[str, int]]
) -> None:
    peer = Peer(mode)
    peer.connect()
    for action, number in steps:
        peer.do(action, number)
    peer.take(peer.flow.abandon("closed"))
    assert sorted(peer.finished) == list(range(1, peer.flow.last_seq + 1))
    assert peer.flow.in_flight == 0
    ledger = peer.flow.ledger
    assert ledger.sent == peer.flow.last_seq
    assert ledger.sent == ledger.results + ledger.dropped.total() + ledger.errors.total()
    assert ledger.resent == sum(peer.sends.values()) - ledger.sent
    assert max(peer.sends.values(), default=0) <= MAX_SENDS


def test_results_carry_the_offer_and_the_servers_account() -> None:
    flow = welcomed()
    sent = frame("mine")
    flow.sending(sent, 1.0)
    assert sent.ts_us == 1_500_000
    (outcome,) = flow.received(result(1, boxes=[[1, 2, 3, 4, 0.5, 1]], cfg=7, t={"infer_ms": 3.0}), now=1.25)
    assert isinstance(outcome, Result)
    assert (outcome.tag, outcome.captured_s, outcome.cfg, outcome.round_trip_s) == ("mine", 1.5, 7, 0.25)
    assert (outcome.width, outcome.height, outcome.timings_ms) == (40, 30, {"infer_ms": 3.0})
    assert outcome.detections.labels == ("bus",)
    assert not outcome.damaged
    flow.sending(frame("other"), 1.1)
    (outcome,) = flow.received(result(2, damaged=True), now=1.3)
    assert isinstance(outcome, Result)
    assert outcome.damaged


def test_boxes_of_a_reduced_frame_lie_in_the_one_offered() -> None:
    flow = welcomed()
    flow.sending(Sent(0, b"", Codec.JPEG, 0.0, None, scale=(2.0, 3.0), size=(80, 90)), 0.0)
    (outcome,) = flow.received(result(1, boxes=[[1, 1, 10, 10, 0.5, 0]]), 0.1)
    assert isinstance(outcome, Result)
    assert outcome.detections.xyxy.tolist() == [[2, 3, 20, 30]]
    assert (outcome.width, outcome.height) == (80, 90)


def test_the_window_counts_frames_on_their_way_to_the_wire_too() -> None:
    flow = welcomed()
    assert flow.refusal(0.0, taken=1) is None
    assert flow.refusal(0.0, taken=2) == "window"
    flow.sending(frame(), 0.0)
    assert flow.refusal(0.0, taken=1) == "window"


def test_a_granted_rate_is_kept_on_average_by_a_source_that_jitters() -> None:
    flow = welcomed(win=8, max_fps=10.0)
    now, sent = 0.0, 0
    for index in range(100):  # 100 frames in 10 s, each up to 20 ms early or late
        now = index * 0.1 + (0.02 if index % 2 else -0.02) + 1.0
        if flow.refusal(now) is None:
            flow.sending(frame(), now)
            flow.received(result(flow.last_seq, win=8), now)
            sent += 1
    assert 95 <= sent <= 100
    burst = 0
    while flow.refusal(now) is None:
        flow.sending(frame(), now)
        burst += 1
    assert burst <= 1
    wait_s = flow.rate_wait_s(now)
    assert wait_s is not None
    assert flow.refusal(now + wait_s - 1e-6) == "rate"
    assert flow.refusal(now + wait_s + 1e-6) is None
    assert flow.rate_wait_s(now + wait_s + 1e-6) is None


def test_live_frames_are_lost_with_their_connection_and_numbers_go_on() -> None:
    flow = welcomed()
    flow.sending(frame("a"), 0.0)
    flow.sending(frame("b"), 0.0)
    lost = flow.disconnected()
    assert [(o.seq, o.tag, o.reason) for o in lost if isinstance(o, Drop)] == [
        (1, "a", "disconnected"),
        (2, "b", "disconnected"),
    ]
    assert flow.refusal(0.0) == "disconnected"
    assert flow.resume_request() == {"session": "s", "acks": {"0": 2}}
    flow.welcomed(welcome(session="other"), 1.0)
    flow.sending(again := frame(), 1.0)
    assert again.seq == 3


def test_mode_all_sends_again_what_has_no_outcome_in_order_within_the_new_window() -> None:
    flow = welcomed("all", win=4)
    for _ in range(4):
        flow.sending(frame(), 0.0)
    flow.received(result(2, ack=0, win=4), 0.0)
    assert flow.disconnected() == []
    assert flow.resume_request() == {"session": "s", "acks": {"0": 0}}
    flow.welcomed(welcome(win=2), 1.0)
    assert flow.resending(1.0).seq == 1
    assert flow.refusal(1.0) == "window"  # frame 1 is unfinished, so a window of 2 ends at frame 2
    flow.received(result(1, ack=2), 1.0)
    assert [flow.resending(1.0).seq, flow.resending(1.0).seq] == [3, 4]
    assert not flow.has_resends
    assert flow.ledger.resent == 3


def test_a_frame_that_keeps_losing_connections_is_given_up() -> None:
    flow = welcomed("all")
    flow.sending(frame(), 0.0)
    for _ in range(MAX_SENDS - 1):
        assert flow.disconnected() == []
        flow.welcomed(welcome(), 1.0)
        flow.resending(1.0)
    (outcome,) = flow.disconnected()
    assert isinstance(outcome, Drop)
    assert outcome.reason == "disconnected"


def test_an_answer_told_twice_counts_once() -> None:
    flow = welcomed("all")
    flow.sending(frame(), 0.0)
    assert len(flow.received(result(1), 0.0)) == 1
    assert flow.received(result(1), 0.0) == []
    assert flow.received({"type": "error", "code": "bad_seq", "message": "", "seq": 1}, 0.0) == []
    assert (flow.ledger.sent, flow.ledger.results, flow.ledger.errors.total()) == (1, 1, 0)


def test_errors_with_a_number_end_a_frame_and_others_do_not() -> None:
    flow = welcomed()
    flow.sending(frame("x"), 0.0)
    assert flow.received({"type": "error", "code": "unknown_field", "message": "m"}, 0.0) == []
    (outcome,) = flow.received(
        {"type": "error", "code": "inference_restarting", "message": "m", "seq": 1, "retry_ms": 500}, 0.0
    )
    assert isinstance(outcome, FrameError)
    assert (outcome.code, outcome.retry_ms, outcome.tag) == ("inference_restarting", 500, "x")


def test_messages_of_other_streams_are_not_ours() -> None:
    flow = welcomed()
    flow.sending(frame(), 0.0)
    assert flow.received(result(1, stream=3, win=0), 0.0) == []
    assert flow.window == 2


def test_a_shut_window_is_asked_about_after_5_s_and_again() -> None:
    flow = welcomed()
    flow.received({"type": "flow", "win": 0, "max_fps": None, "ack": 0, "reason": "restarting"}, 1.0)
    assert flow.refusal(1.0) == "window"
    assert not flow.ping_due(1.0 + HOLD_PING_S - 0.1)
    assert flow.ping_due(1.0 + HOLD_PING_S)
    assert not flow.ping_due(1.0 + HOLD_PING_S + 0.1)
    assert flow.ping_due(1.0 + 2 * HOLD_PING_S)
    flow.received({"type": "flow", "win": 2, "max_fps": None, "ack": 0, "reason": "ready"}, 12.0)
    assert not flow.ping_due(12.0 + HOLD_PING_S)
    assert flow.refusal(12.0) is None


def test_a_silent_stream_is_kept_alive() -> None:
    flow = welcomed()
    assert not flow.ping_due(KEEPALIVE_S - 1)
    assert flow.ping_due(KEEPALIVE_S)
    flow.sending(frame(), KEEPALIVE_S + 1)
    assert not flow.ping_due(2 * KEEPALIVE_S)
    assert flow.ping_due(2 * KEEPALIVE_S + 1)


def test_a_message_that_lacks_a_field_raises_what_the_stream_catches() -> None:
    flow = welcomed()
    flow.sending(frame(), 0.0)
    with pytest.raises(KeyError):
        flow.received({"type": "result", "seq": 1}, 0.0)
    with pytest.raises(KeyError):
        flow.received({"type": "drop", "from": 1}, 0.0)


def test_labels_follow_a_model_that_the_server_changes() -> None:
    flow = Flow("live")
    flow.welcomed({"session": "a", "model": {"labels": ["person", "bus"]}, "flow": {"win": 2}}, 0.0)
    assert flow.received({"type": "configured", "cfg": 1, "params": {}}, 1.0) == []
    assert list(flow.labels) == ["person", "bus"], "an answer to `configure` names no model"
    flow.received({"type": "configured", "cfg": 1, "params": {}, "model": {"labels": ["tram"]}}, 2.0)
    assert list(flow.labels) == ["tram"]
